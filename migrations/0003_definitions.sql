-- Definitions: a changed definition changes answers without any row being written. Where the migrating role may create event
-- triggers, these functions announce such changes as everything. Elsewhere pods find them by the schema's fingerprint alone.
--
-- Not announced: what concerns temporary objects, indexes, statistics, grants and comments, and schema seawall itself. None
-- of it changes what a query answers. A log that is gone announces nothing: it must not keep anybody from repairing it.

CREATE FUNCTION seawall.defined() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regclass('seawall.event') IS NOT NULL AND EXISTS (
        SELECT FROM pg_event_trigger_ddl_commands()
         WHERE schema_name IS DISTINCT FROM 'seawall'
           AND coalesce(schema_name, '') !~ '^pg_(toast_)?temp'
           AND command_tag NOT IN ('GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES', 'COMMENT', 'SECURITY LABEL')
           AND object_type NOT IN ('index', 'statistics object')
           -- What belongs to a table has no schema of its own, only a name that says whose it is.
           AND NOT (object_type IN ('trigger', 'rule', 'policy') AND object_identity ~ ' on pg_temp\.[^ ]*$')
    ) THEN
        PERFORM seawall.announce(ARRAY['*']);
    END IF;
END
$$;

CREATE FUNCTION seawall.dropped() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regclass('seawall.event') IS NOT NULL AND EXISTS (
        -- What the command named; the rest goes with it.
        SELECT FROM pg_event_trigger_dropped_objects()
         WHERE original AND NOT is_temporary
           AND schema_name IS DISTINCT FROM 'seawall'
           AND coalesce(schema_name, '') !~ '^pg_(toast_)?temp'
           AND object_type NOT IN ('index', 'statistics object')
    ) THEN
        PERFORM seawall.announce(ARRAY['*']);
    END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA seawall FROM PUBLIC;
