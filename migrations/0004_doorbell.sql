-- The doorbell: wakes pods that sleep, and costs writers nothing while none does.
--
-- A sleeping pod holds an advisory lock, shared. A writer tries for it, exclusively: where it can't be had, somebody sleeps or
-- another writer is just trying, and it notifies. A notification takes a lock across the flush of its commit, which all that
-- notify queue for; so none is sent while pods are awake.

-- The key of the lock. `seawall migrate` replaces it where the configuration has another.
CREATE FUNCTION seawall.doorbell_key() RETURNS int8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT 7309940371::pg_catalog.int8';
COMMENT ON FUNCTION seawall.doorbell_key() IS 'The advisory lock that sleeping pods hold.';

-- The channel to ring on; likewise.
CREATE FUNCTION seawall.doorbell_channel() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT ''seawall''::pg_catalog.text';
COMMENT ON FUNCTION seawall.doorbell_channel() IS 'The channel on which sleeping pods are woken.';

-- Tried and released in ONE expression: between two statements a cancel would leave the lock with the writer's session for
-- ever. A transaction that has notified can't be prepared, so where there may be any, nobody is rung, and pods never sleep.
CREATE OR REPLACE FUNCTION seawall.announce(tags text[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO seawall.event (tag) SELECT pg_catalog.unnest(tags) ON CONFLICT DO NOTHING;
    IF pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.=) '0'
       AND NOT (CASE WHEN pg_catalog.pg_try_advisory_lock(seawall.doorbell_key())
                     THEN pg_catalog.pg_advisory_unlock(seawall.doorbell_key()) ELSE false END) THEN
        PERFORM pg_catalog.pg_notify(seawall.doorbell_channel(), '');
    END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA seawall FROM PUBLIC;
