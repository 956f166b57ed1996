//! What the analysis asks of the system catalogs. Every name is qualified: a search path may put others first.

use postgres_types::Type;
use tokio_postgres::{Client, Error};

use super::trees::{self, References};

/// Rows of `pg_class`.
const RELATIONS: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, \
     c.relrowsecurity FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.oid = ANY ($1)";

/// The trees of views and of policies that reading is subject to, each with what `pg_depend` knows beside it.
const TREES: &str = "SELECT t.tree, \
     ARRAY(SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = t.class AND d.objid = t.oid \
           AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass), \
     ARRAY(SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = t.class AND d.objid = t.oid \
           AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass), \
     ARRAY(SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = t.class AND d.objid = t.oid \
           AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass), \
     ARRAY(SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = t.class AND d.objid = t.oid \
           AND d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass), \
     ARRAY(SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = t.class AND d.objid = t.oid \
           AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass) \
     FROM (SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid AS class, r.oid, r.ev_action::text AS tree \
             FROM pg_catalog.pg_rewrite r WHERE r.ev_class = ANY ($1) AND r.ev_type = '1' \
           UNION ALL \
           SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid, coalesce(p.polqual::text, '') \
             FROM pg_catalog.pg_policy p WHERE p.polrelid = ANY ($2) AND p.polcmd IN ('r', '*')) AS t";

/// Functions, those of operators and the parts of aggregates included.
const FUNCTIONS: &str = "WITH called(oid) AS (\
     SELECT pg_catalog.unnest($1::pg_catalog.oid[]) \
     UNION SELECT o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator o WHERE o.oid = ANY ($2)), \
     parts(oid) AS (SELECT oid FROM called UNION SELECT part.oid FROM called \
     JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = called.oid CROSS JOIN LATERAL (VALUES \
     (a.aggtransfn::pg_catalog.oid), (a.aggfinalfn), (a.aggcombinefn), (a.aggserialfn), (a.aggdeserialfn), \
     (a.aggmtransfn), (a.aggminvtransfn), (a.aggmfinalfn)) AS part(oid) WHERE part.oid <> 0) \
     SELECT p.oid, n.nspname::text, p.proname::text, p.oid::pg_catalog.regprocedure::text, l.lanname::text, \
     p.provolatile::text, p.pronargs FROM parts JOIN pg_catalog.pg_proc p ON p.oid = parts.oid \
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
     ORDER BY p.oid";

/// Whether rows are compared in a way that isn't that of their texts, and where.
const COMPARED_OTHERWISE: &str = "SELECT 'the collation ' || collname FROM pg_catalog.pg_collation \
     WHERE oid = ANY ($1) AND NOT collisdeterministic UNION ALL \
     SELECT 'the operator ' || oid::pg_catalog.regoperator::text FROM pg_catalog.pg_operator \
     WHERE oid = ANY ($2) AND oprname = '=' AND oprnamespace <> 'pg_catalog'::pg_catalog.regnamespace ORDER BY 1 LIMIT 1";

/// The family of each table: its descendants (`below`), and every ancestor of any of them.
const FAMILIES: &str = "WITH RECURSIVE below(root, oid) AS (\
     SELECT o, o FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS o \
     UNION SELECT b.root, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid), \
     family(root, oid) AS (SELECT root, oid FROM below \
     UNION SELECT f.root, i.inhparent FROM family f JOIN pg_catalog.pg_inherits i ON i.inhrelid = f.oid) \
     SELECT f.root, c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, \
     EXISTS (SELECT FROM below b WHERE b.root = f.root AND b.oid = f.oid) \
     FROM family f JOIN pg_catalog.pg_class c ON c.oid = f.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     ORDER BY n.nspname, c.relname";

/// Columns of tables, and whether equal values of them are equal texts as far as their collation goes.
const COLUMNS: &str = "SELECT a.attrelid, a.attname::text, a.atttypid, coalesce(c.collisdeterministic, true) \
     FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
     WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped";

/// Types of columns and expressions and what they are made of, as far as they are not built in; and the relations that
/// hold the columns of composite ones.
const TYPES: &str = "WITH RECURSIVE known(oid) AS (\
     SELECT pg_catalog.unnest($1::pg_catalog.oid[]) \
     UNION SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ($2) AND a.attnum > 0 \
     UNION SELECT part.oid FROM known JOIN pg_catalog.pg_type t ON t.oid = known.oid CROSS JOIN LATERAL (\
     SELECT t.typelem UNION ALL SELECT t.typbasetype \
     UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid \
     UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0\
     ) AS part(oid) WHERE part.oid <> 0) \
     SELECT t.oid, t.typrelid FROM known JOIN pg_catalog.pg_type t ON t.oid = known.oid WHERE t.oid >= $3 ORDER BY 1";

/// What names of relations stand for; NULL where for none.
const NAMED: &str = "SELECT pg_catalog.to_regclass(name)::pg_catalog.oid \
     FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS n(name, place) ORDER BY place";

/// How parameters are spelt in casts. `format_type` prints two types by names that, in a cast, would cut to length one.
const SPELLINGS: &str = "SELECT CASE oid WHEN 'pg_catalog.bpchar'::pg_catalog.regtype THEN 'pg_catalog.bpchar' \
     WHEN 'pg_catalog.bit'::pg_catalog.regtype THEN 'pg_catalog.\"bit\"' ELSE pg_catalog.format_type(oid, NULL) END \
     FROM pg_catalog.unnest($1::pg_catalog.oid[]) WITH ORDINALITY AS t(oid, place) ORDER BY place";

/// A row of `pg_class`.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) persistence: String,
    pub(super) row_security: bool,
}

/// A row of `pg_proc`.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) signature: String,
    pub(super) language: String,
    pub(super) volatility: String,
    pub(super) arguments: i16,
}

/// One member of a table's family.
#[derive(Clone, Debug)]
pub(super) struct Kin {
    pub(super) root: u32,
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) persistence: String,
    /// Whether it is the table itself or a descendant.
    pub(super) below: bool,
}

/// A column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) relation: u32,
    pub(super) name: String,
    pub(super) kind: u32,
    pub(super) deterministic: bool,
}

pub(super) async fn relations(client: &Client, oids: &[u32]) -> Result<Vec<Class>, Error> {
    let rows = client.query_typed(RELATIONS, &[(&oids, Type::OID_ARRAY)]).await?;
    let class = |row: &tokio_postgres::Row| {
        Ok(Class {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            kind: row.try_get(3)?,
            persistence: row.try_get(4)?,
            row_security: row.try_get(5)?,
        })
    };
    rows.iter().map(class).collect()
}

/// Reads the trees of `views` and of the policies of `tables` into `found`.
pub(super) async fn trees(client: &Client, views: &[u32], tables: &[u32], found: &mut References) -> Result<(), Error> {
    for row in client.query_typed(TREES, &[(&views, Type::OID_ARRAY), (&tables, Type::OID_ARRAY)]).await? {
        trees::read(row.try_get(0)?, found);
        found.relations.extend(row.try_get::<_, Vec<u32>>(1)?);
        found.functions.extend(row.try_get::<_, Vec<u32>>(2)?);
        found.operators.extend(row.try_get::<_, Vec<u32>>(3)?);
        found.collations.extend(row.try_get::<_, Vec<u32>>(4)?);
        found.types.extend(row.try_get::<_, Vec<u32>>(5)?);
    }
    Ok(())
}

pub(super) async fn functions(client: &Client, found: &References) -> Result<Vec<Function>, Error> {
    let (functions, operators) = (list(&found.functions), list(&found.operators));
    let rows = client.query_typed(FUNCTIONS, &[(&functions, Type::OID_ARRAY), (&operators, Type::OID_ARRAY)]).await?;
    let function = |row: &tokio_postgres::Row| {
        Ok(Function {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            signature: row.try_get(3)?,
            language: row.try_get(4)?,
            volatility: row.try_get(5)?,
            arguments: row.try_get(6)?,
        })
    };
    rows.iter().map(function).collect()
}

/// What compares otherwise than texts do, if anything.
pub(super) async fn compared_otherwise(client: &Client, found: &References) -> Result<Option<String>, Error> {
    let (collations, operators) = (list(&found.collations), list(&found.operators));
    let sql = COMPARED_OTHERWISE;
    let rows = client.query_typed(sql, &[(&collations, Type::OID_ARRAY), (&operators, Type::OID_ARRAY)]).await?;
    rows.first().map(|row| row.try_get(0)).transpose()
}

pub(super) async fn families(client: &Client, tables: &[u32]) -> Result<Vec<Kin>, Error> {
    let rows = client.query_typed(FAMILIES, &[(&tables, Type::OID_ARRAY)]).await?;
    let kin = |row: &tokio_postgres::Row| {
        Ok(Kin {
            root: row.try_get(0)?,
            oid: row.try_get(1)?,
            schema: row.try_get(2)?,
            name: row.try_get(3)?,
            kind: row.try_get(4)?,
            persistence: row.try_get(5)?,
            below: row.try_get(6)?,
        })
    };
    rows.iter().map(kin).collect()
}

pub(super) async fn columns(client: &Client, tables: &[u32]) -> Result<Vec<Column>, Error> {
    let rows = client.query_typed(COLUMNS, &[(&tables, Type::OID_ARRAY)]).await?;
    let column = |row: &tokio_postgres::Row| {
        Ok(Column {
            relation: row.try_get(0)?,
            name: row.try_get(1)?,
            kind: row.try_get(2)?,
            deterministic: row.try_get(3)?,
        })
    };
    rows.iter().map(column).collect()
}

/// User types of `relations` and of what was found, and relations that hold the columns of composite ones.
pub(super) async fn types(
    client: &Client,
    found: &References,
    relations: &[u32],
) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let types = list(&found.types);
    let first = trees::FIRST_USER_OID;
    let params: [(&(dyn postgres_types::ToSql + Sync), Type); 3] =
        [(&types, Type::OID_ARRAY), (&relations, Type::OID_ARRAY), (&first, Type::OID)];
    let (mut oids, mut holders) = (vec![], vec![]);
    for row in client.query_typed(TYPES, &params).await? {
        oids.push(row.try_get(0)?);
        holders.extend(Some(row.try_get::<_, u32>(1)?).filter(|oid| *oid != 0));
    }
    Ok((oids, holders))
}

pub(super) async fn named(client: &Client, names: &[String]) -> Result<Vec<Option<u32>>, Error> {
    let rows = client.query_typed(NAMED, &[(&names, Type::TEXT_ARRAY)]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

pub(super) async fn spellings(client: &Client, types: &[u32]) -> Result<Vec<String>, Error> {
    let rows = client.query_typed(SPELLINGS, &[(&types, Type::OID_ARRAY)]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

fn list(set: &std::collections::BTreeSet<u32>) -> Vec<u32> {
    set.iter().copied().collect()
}
