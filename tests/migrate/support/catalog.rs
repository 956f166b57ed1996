//! The catalogs as a text, to compare two databases by: all that a migration makes, and none of what differs by chance.

use tokio_postgres::Client;

/// Schema `seawall`, the triggers that call it, and the event triggers. Roles are named by what they are for.
pub async fn catalog(client: &Client, owner: &str, service: &str) -> String {
    let parts = [
        "SELECT 'schema ' || nspname || ' ' || nspowner::regrole || ' ' || coalesce(nspacl::text, '') FROM pg_namespace \
         WHERE nspname = 'seawall'",
        "SELECT format('table %s %s %s %s %s %s', relname, relkind, relpersistence, relowner::regrole, relacl, reloptions) \
         FROM pg_class WHERE relnamespace = 'seawall'::regnamespace ORDER BY relname",
        "SELECT format('column %s.%s %s %s %s %s', c.relname, a.attname, format_type(atttypid, atttypmod), attnotnull, \
         attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid)) \
         FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum \
         WHERE relnamespace = 'seawall'::regnamespace AND attnum > 0 ORDER BY c.relname, attname",
        "SELECT 'constraint ' || conname || ' ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
         WHERE connamespace = 'seawall'::regnamespace ORDER BY conname",
        "SELECT format('%s %s %s %s', pg_get_functiondef(oid), proowner::regrole, proacl, obj_description(oid)) FROM pg_proc \
         WHERE pronamespace = 'seawall'::regnamespace ORDER BY proname",
        "SELECT pg_get_triggerdef(t.oid) || ' ' || tgenabled::text FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid \
         WHERE pronamespace = 'seawall'::regnamespace ORDER BY tgrelid::regclass::text, tgname",
        "SELECT format('event trigger %s %s %s %s', evtname, evtevent, evtfoid::regproc, evtenabled) FROM pg_event_trigger \
         WHERE evtname LIKE 'seawall%' ORDER BY evtname",
        "SELECT format('applied %s %s %s', version, name, checksum) FROM seawall.migration ORDER BY version",
    ];
    let mut text = String::new();
    for sql in parts {
        for row in client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error())) {
            text.push_str(&row.get::<_, String>(0));
            text.push('\n');
        }
    }
    text.replace(owner, "<owner>").replace(service, "<service>")
}
