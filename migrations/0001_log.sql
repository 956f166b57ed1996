-- The event log and the epoch: what every pod reads, and the functions that keep them.
--
-- `seawall.event` says which transaction announced which tag. It is UNLOGGED: a write pays for no WAL, and a crash empties it
-- together with `seawall.epoch`, whose row is part of every lineage. So a log that lost events can't be mistaken for one that
-- has them. Functions run with the rights of the role that migrates, on a pinned search path, and PUBLIC may call none.

-- A schema that is there already may have been made for us: creating schemas takes a right that this role need not have.
DO $$
BEGIN
    IF pg_catalog.to_regnamespace('seawall') IS NULL THEN
        CREATE SCHEMA seawall;
    END IF;
END
$$;
REVOKE ALL ON SCHEMA seawall FROM PUBLIC;

-- What has been applied. The one table that survives a crash.
CREATE TABLE seawall.migration (
    version    int PRIMARY KEY CHECK (version > 0),
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
REVOKE ALL ON seawall.migration FROM PUBLIC;

-- The writer's own transaction id leads the key, so writers never wait for each other here. The collation is fixed: tags are
-- compared byte by byte, whatever the database sorts by.
CREATE UNLOGGED TABLE seawall.event (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    tag text COLLATE "C" NOT NULL,
    PRIMARY KEY (xid, tag)
) WITH (
    -- Rows live for the retention and then all die: vacuum after ten thousand of them, however large the table is.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
    -- To cut the end off, vacuum would lock out every writer for a moment. The space is used again instead.
    vacuum_truncate = false
);
REVOKE ALL ON seawall.event FROM PUBLIC;

-- Exactly one row, or none until it is seeded: `seawall.reseed()`.
CREATE UNLOGGED TABLE seawall.epoch (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    id      uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The cluster and the database it was seeded in. A restored dump or a copied database brings those of another.
    sysid   int8 NOT NULL,
    dboid   oid NOT NULL,
    -- The log may lack what this snapshot's xmin is above of: it was pruned.
    horizon pg_snapshot NOT NULL DEFAULT pg_current_snapshot()
);
REVOKE ALL ON seawall.epoch FROM PUBLIC;

-- Makes the epoch that of this database, if it is not; NULL in recovery, where nothing can be written. Call it in a
-- transaction of its own, READ COMMITTED and read-write.
--
-- A crash and a promotion empty the log but keep prepared transactions, which then commit without an event. Each of them
-- gets one here, for everything. One that is not listed any more has already ended for every later snapshot, and only those
-- see the new epoch.
CREATE FUNCTION seawall.reseed() RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own_sysid int8;
    own_dboid oid;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    SELECT system_identifier INTO own_sysid FROM pg_control_system();
    SELECT oid INTO own_dboid FROM pg_database WHERE datname = current_database();
    INSERT INTO seawall.epoch (sysid, dboid) VALUES (own_sysid, own_dboid) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        -- Of several that come here at once the row's lock lets one change it; the others find it changed.
        UPDATE seawall.epoch SET id = DEFAULT, sysid = own_sysid, dboid = own_dboid, horizon = DEFAULT
         WHERE (sysid, dboid) IS DISTINCT FROM (own_sysid, own_dboid);
        IF NOT FOUND THEN
            RETURN (SELECT id FROM seawall.epoch);
        END IF;
        -- Another history's rows. Those of transactions that still run are not visible here, and stay.
        DELETE FROM seawall.event;
    END IF;
    -- Prepared transactions are listed by 32-bit ids: each stands for the 64-bit one nearest to the present.
    INSERT INTO seawall.event (xid, tag)
    SELECT (present.xmax + ((prepared.transaction::text::int8 - present.xmax + 2147483648) & 4294967295) - 2147483648)
               ::text::xid8, '*'
      FROM pg_prepared_xacts AS prepared,
           (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS xmax) AS present
     WHERE prepared.database = current_database()
        ON CONFLICT DO NOTHING;
    RETURN (SELECT id FROM seawall.epoch);
END
$$;
COMMENT ON FUNCTION seawall.reseed() IS 'Makes the epoch that of this database; called by every pod that finds none.';

-- Forgets events older than `horizon`, a snapshot that was taken at least the retention ago under the epoch `epoch`. The
-- number of events deleted; NULL where nothing was done: in recovery, in another epoch, or where the log's horizon is as new.
--
-- The row's lock orders pruners, and the epoch keeps out those of another history: without either a slower one moves the
-- horizon back behind what is already deleted. A horizon from the future would delete what nobody has read yet.
CREATE FUNCTION seawall.prune(epoch uuid, horizon pg_snapshot) RETURNS int8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted int8;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    UPDATE seawall.epoch AS known SET horizon = prune.horizon
     WHERE known.id = prune.epoch
       AND pg_snapshot_xmin(known.horizon) < pg_snapshot_xmin(prune.horizon)
       AND pg_snapshot_xmin(prune.horizon) <= pg_snapshot_xmin(pg_current_snapshot());
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM seawall.event WHERE xid < pg_snapshot_xmin(prune.horizon);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION seawall.prune(uuid, pg_snapshot) IS 'Forgets events older than a snapshot; called by every pod.';

-- The epoch's id, if it is that of this cluster and database: part of the lineage that each fill and each poll selects. A
-- function, because a statement that names an UNLOGGED table fails in recovery before it has asked whether it is there; and
-- STABLE, because the row must be that of the statement's own snapshot. It runs with the rights and the path of its caller.
CREATE FUNCTION seawall.epoch_id(own_sysid int8, own_dboid oid) RETURNS uuid
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (
        SELECT known.id FROM seawall.epoch AS known
         WHERE known.sysid OPERATOR(pg_catalog.=) own_sysid AND known.dboid OPERATOR(pg_catalog.=) own_dboid
    );
END
$$;
COMMENT ON FUNCTION seawall.epoch_id(int8, oid) IS 'Part of the lineage, selected by every fill and poll.';

-- Which history of which database this is, as fills and polls compose it; NULL where a part is missing.
CREATE FUNCTION seawall.lineage() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE (
    SELECT system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '/' || here.oid::text || '/' ||
           extract(epoch FROM pg_postmaster_start_time())::text || '/' || seawall.epoch_id(system_identifier, here.oid)::text
      FROM pg_control_system(), pg_database AS here WHERE here.datname = current_database()) END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA seawall FROM PUBLIC;
