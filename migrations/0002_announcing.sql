-- Announcing: how a write gets into the log, by its triggers or by hand.
--
-- An event is the id of the writer's top-level transaction and a tag:
--
--   shop.products           a table, with every write to it
--   shop.products:id=42     the rows with that value, before or after the write; several columns: `:a=1,b=2`, by name
--   shop.products:*         every row of the table
--   *                       everything
--   anything else           a name of the user's
--
-- Nothing here may fail a user's statement. So there is nothing to grant to a writer, every value has a bound, and what
-- exceeds one is announced as more than it is, never as less. No function catches errors: that would cost each statement a
-- subtransaction, and an event that is swallowed is a wrong answer that counts as fresh.

-- The part of a tag that a name or a value becomes: letters, digits and `_.~-` as they are, every other byte of its UTF-8 as
-- `%` and two upper-case hexadecimal digits. `*` stands for any value: for one over 200 bytes, and where a value can't be
-- turned into UTF-8 without a risk of failing, in a database of another encoding.
CREATE FUNCTION seawall.tag_text(value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    IF pg_catalog.octet_length(value) OPERATOR(pg_catalog.>) 200 THEN
        RETURN '*';
    ELSIF value COLLATE pg_catalog."C" OPERATOR(pg_catalog.~) '^[A-Za-z0-9_.~-]*$' THEN
        RETURN value;
    ELSIF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RETURN '*';
    END IF;
    RETURN (
        SELECT pg_catalog.string_agg(
                   CASE WHEN pg_catalog.chr(byte) COLLATE pg_catalog."C" OPERATOR(pg_catalog.~) '^[A-Za-z0-9_.~-]$'
                        THEN pg_catalog.chr(byte)
                        ELSE pg_catalog.concat('%', pg_catalog.upper(pg_catalog.lpad(pg_catalog.to_hex(byte), 2, '0')))
                   END, '' ORDER BY place)
          FROM (SELECT place, pg_catalog.get_byte(pg_catalog.convert_to(value, 'UTF8'), place) AS byte
                  FROM pg_catalog.generate_series(0, pg_catalog.octet_length(value) OPERATOR(pg_catalog.-) 1) AS place
               ) AS bytes
    );
END
$$;
COMMENT ON FUNCTION seawall.tag_text(text) IS 'Percent-encodes a name or a value for a tag.';

-- The tag of a table, for `seawall.invalidate`.
CREATE FUNCTION seawall.table_tag(schema_name text, table_name text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT seawall.tag_text(schema_name) || '.' || seawall.tag_text(table_name) $$;
COMMENT ON FUNCTION seawall.table_tag(text, text) IS 'The tag of a table, for seawall.invalidate.';

-- Puts tags into the log. Everything that announces comes through here. It sets no search path of its own, as that costs each
-- write some microseconds: those who call it have pinned theirs, and nobody else may.
CREATE FUNCTION seawall.announce(tags text[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO seawall.event (tag) SELECT pg_catalog.unnest(tags) ON CONFLICT DO NOTHING;
    -- The doorbell: what wakes sleeping pods is rung here, after the rows, and nowhere else.
END
$$;

-- Announces by hand, with the transaction that calls it. A table's tag announces each of its rows, too. A tag over 1000
-- bytes fits no index and is announced as everything; NULL and the empty text are nothing. Does nothing in recovery.
CREATE FUNCTION seawall.invalidate(VARIADIC tags text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN;
    END IF;
    PERFORM seawall.announce(ARRAY(
        SELECT CASE WHEN octet_length(given) > 1000 THEN '*' ELSE given END
          FROM unnest(tags) AS given WHERE given <> ''
        UNION
        SELECT given || ':*'
          FROM unnest(tags) AS given
         WHERE given <> '' AND given <> '*' AND strpos(given, ':') = 0 AND octet_length(given) <= 1000
    ));
END
$$;
COMMENT ON FUNCTION seawall.invalidate(text[]) IS 'Announces tags, in this transaction: answers that depend on them are refilled.';

-- Announces the canary of a pod, by which it measures how long an event takes to reach it. It wakes nobody.
CREATE FUNCTION seawall.canary(pod text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ INSERT INTO seawall.event (tag) SELECT 'canary:' || left(pod, 100) WHERE NOT pg_is_in_recovery() ON CONFLICT DO NOTHING $$;
COMMENT ON FUNCTION seawall.canary(text) IS 'Announces the canary of a pod; called by every pod.';

-- What a client sends as Seawall-After to read what this transaction writes. Without an epoch only the transaction's id: it
-- then means the history that the answering pod is in.
CREATE FUNCTION seawall.token() RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(seawall.lineage() || ':', '') || pg_current_xact_id()::text $$;
COMMENT ON FUNCTION seawall.token() IS 'Send it as Seawall-After: the answer contains what this transaction writes.';

-- Triggers carry what they announce in their arguments, where pods read it: the table's tag, constant, so that a rename behind
-- a view changes nothing; then each set of columns that rows are announced by, as `column=type,column=type`, names encoded.
-- INSERT, UPDATE and DELETE have functions made for their columns, `seawall.written_*`, by `seawall migrate`.

-- AFTER TRUNCATE, FOR EACH STATEMENT.
CREATE FUNCTION seawall.truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM seawall.announce(ARRAY[tg_argv[0], tg_argv[0] || ':*']);
    RETURN NULL;
END
$$;

-- AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW, on tables that logical replication writes: its workers fire no statement
-- triggers. Columns are looked up by name and type, and their values taken through jsonb, which prints these types as they
-- print themselves. A transaction's rows are announced one by one up to 64 keys, then as every row, once.
CREATE FUNCTION seawall.row_applied() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation text := tg_argv[0];
    keys text[] := '{}';
    image jsonb;
    key text;
BEGIN
    IF EXISTS (SELECT FROM seawall.event WHERE xid = pg_current_xact_id() AND tag = relation || ':*') THEN
        RETURN NULL;
    END IF;
    FOREACH image IN ARRAY CASE tg_op WHEN 'INSERT' THEN ARRAY[to_jsonb(new)] WHEN 'DELETE' THEN ARRAY[to_jsonb(old)]
                                      ELSE ARRAY[to_jsonb(old), to_jsonb(new)] END LOOP
        FOR place IN 1 .. tg_nargs - 1 LOOP
            SELECT CASE WHEN count(a.attname) < count(*) THEN '*'
                        WHEN bool_and(image ->> a.attname IS NOT NULL)
                        THEN string_agg(split_part(part, '=', 1) || '=' || seawall.tag_text(image ->> a.attname), ','
                                        ORDER BY ordinal) END
              INTO key
              FROM unnest(string_to_array(tg_argv[place], ',')) WITH ORDINALITY AS parts (part, ordinal)
              LEFT JOIN pg_attribute AS a ON a.attrelid = tg_relid AND a.attnum > 0 AND NOT a.attisdropped
                    AND seawall.tag_text(a.attname) = split_part(part, '=', 1)
                    AND a.atttypid = to_regtype(split_part(part, '=', 2));
            IF key IS NOT NULL THEN
                keys := keys || (relation || ':' || key);
            END IF;
        END LOOP;
    END LOOP;
    IF cardinality(keys) > 0 AND (
           EXISTS (SELECT FROM unnest(keys) AS own WHERE strpos(own, '*') > 0 OR octet_length(own) > 1000)
        OR (SELECT count(*) FROM (SELECT tag FROM seawall.event WHERE xid = pg_current_xact_id()
                                     AND tag > relation || ':' AND tag < relation || ';'
                                   UNION SELECT unnest(keys) LIMIT 65) AS announced) > 64) THEN
        keys := ARRAY[relation || ':*'];
    END IF;
    PERFORM seawall.announce(relation || keys);
    RETURN NULL;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA seawall FROM PUBLIC;
