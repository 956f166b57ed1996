//! What queries depend on, as Postgres says it: verdicts, tables, rows and the schema fingerprint.

mod calls;
mod declared;
mod fingerprint;
mod oracle;
mod reached;
mod rows;
mod triggers;

use std::fmt::Write as _;
use std::sync::Arc;

use seawall::catalog::depends::{self, Depends, RelationName, Rows};
use seawall::catalog::verdict::{Kind, Verdict, Wanted, wanted};
use seawall::catalog::{Catalog, Declaration, ParamDeclaration, Shape};
use seawall::postgres::{Analysed, Postgres, Settings};

use crate::support::declare;
use crate::support::server::Database;

/// A database and the origin that looks at it.
struct Bench {
    db: Database,
    postgres: Postgres,
}

/// What is declared of one table: `("shop.products", "id = :id")`, or `"true"`.
type Stated = (&'static str, &'static str);

/// A query with what is declared of its tables.
fn stated(name: &str, sql: &str, tables: &[Stated]) -> Declaration {
    let declaration = Declaration { name: name.into(), ..declare(sql) };
    if tables.is_empty() {
        return declaration;
    }
    let params = declaration.statement.params();
    let depends = tables.iter().map(|(table, rows)| Depends {
        relation: RelationName::parse(table).expect("a name"),
        rows: match *rows {
            "true" => Rows::Whole,
            rows => Rows::Where(
                depends::rows(rows)
                    .expect("a row statement")
                    .into_iter()
                    .map(|(column, param)| {
                        let index = params.iter().position(|known| *known == param).expect("a parameter of the SQL");
                        (column, index)
                    })
                    .collect(),
            ),
        },
    });
    Declaration { depends: Some(depends.collect()), ..declaration }
}

/// The same, with a type for each parameter.
fn typed(declaration: Declaration, types: &[(&str, &str)]) -> Declaration {
    let params = types
        .iter()
        .map(|(name, kind)| {
            ((*name).into(), ParamDeclaration { type_name: Some((*kind).into()), ..ParamDeclaration::default() })
        })
        .collect();
    Declaration { params, ..declaration }
}

impl Bench {
    async fn new(sql: &str) -> Self {
        let db = Database::new(sql).await;
        let postgres = Postgres::new(db.settings(), |_| {}).expect("usable settings");
        Self { db, postgres }
    }

    async fn run(&self, sql: &str) {
        self.db.admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn over(self, settings: Settings) -> Self {
        Self { postgres: Postgres::new(settings, |_| {}).expect("usable settings"), ..self }
    }

    /// Prepares and analyses all of them.
    async fn all(&self, declarations: Vec<Declaration>) -> (Vec<Arc<Verdict>>, Analysed) {
        let names: Vec<Box<str>> = declarations.iter().map(|d| d.name.clone()).collect();
        let catalog = Catalog::new(declarations);
        self.postgres.prepare_all(&catalog).await.expect("the database answers");
        for query in catalog.iter() {
            if let Shape::Broken(broken) = &**query.shape() {
                panic!("{} is broken: {}", query.declaration().statement.text(), broken.reason);
            }
        }
        let analysed = self.postgres.analyse_all(&catalog).await.expect("the database answers");
        let verdict = |name: &str| catalog.get(name).expect("it is there").verdict().expect("it is judged");
        (names.iter().map(|name| verdict(name)).collect(), analysed)
    }

    async fn of(&self, declaration: Declaration) -> Verdict {
        Arc::unwrap_or_clone(self.all(vec![declaration]).await.0.remove(0))
    }

    async fn one(&self, sql: &str) -> Verdict {
        self.of(stated("q", sql, &[])).await
    }

    /// Triggers as a migration would make them, but for what they do.
    async fn install(&self, wanted: &[Wanted]) {
        self.run(
            "CREATE SCHEMA IF NOT EXISTS seawall; CREATE OR REPLACE FUNCTION seawall.nothing() RETURNS trigger \
             LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        )
        .await;
        for table in wanted {
            let name = format!("\"{}\".\"{}\"", table.schema, table.name);
            let mut arguments = format!("'{}.{}'", table.schema, table.name);
            for list in &table.columns {
                let columns: Vec<String> = list.iter().map(|column| format!("{column}=any")).collect();
                write!(arguments, ", '{}'", columns.join(",")).expect("a String takes all");
            }
            for event in ["INSERT", "UPDATE", "DELETE", "TRUNCATE"] {
                let trigger = format!("seawall_{}", event.to_lowercase());
                self.run(&format!(
                    "CREATE OR REPLACE TRIGGER {trigger} AFTER {event} ON {name} FOR EACH STATEMENT \
                     EXECUTE FUNCTION seawall.nothing({arguments}); \
                     ALTER TABLE {name} ENABLE ALWAYS TRIGGER {trigger}"
                ))
                .await;
            }
        }
    }

    /// The verdicts once all triggers are there.
    async fn with_triggers(&self, declarations: Vec<Declaration>) -> Vec<Arc<Verdict>> {
        let (verdicts, _) = self.all(declarations.clone()).await;
        self.install(&wanted(verdicts.iter().map(|v| &**v))).await;
        self.all(declarations).await.0
    }
}

/// Tables that a verdict depends on, with their rows: `shop.products`, `shop.products:id`.
fn tables(verdict: &Verdict) -> Vec<String> {
    let rows = |rows: &Vec<seawall::catalog::verdict::RowKey>| {
        format!(":{}", rows.iter().map(|row| &*row.column).collect::<Vec<_>>().join(","))
    };
    verdict
        .dependencies
        .iter()
        .map(|d| format!("{}{}", d.relation, d.rows.as_ref().map_or_else(String::new, rows)))
        .collect()
}

/// The family of a verdict's only table.
fn family(verdict: &Verdict) -> Vec<String> {
    assert_eq!(verdict.dependencies.len(), 1, "{verdict:#?}");
    verdict.dependencies[0].family.iter().map(|member| member.relation.to_string()).collect()
}

/// That events can't keep it fresh, for a reason that says `word`.
fn unkept_for(verdict: &Verdict, word: &str) {
    assert_eq!(verdict.at_best, Kind::TtlOnly, "{word}: {verdict:#?}");
    assert!(verdict.reasons.iter().any(|reason| reason.contains(word)), "{word}: {:?}", verdict.reasons);
}
