//! The doorbell's lock and channel, where the configuration has others than those that are installed.
//!
//! Writers and pods read both from the database, so that they always agree. Pods that sleep by the old ones are woken by the
//! change, and look them up before they sleep again. What a writer rings meanwhile that has not heard of the change is found by
//! the safety polls.

use tokio_postgres::{Client, Error};

use super::function::literal;
use super::session::Migrating;
use super::{MigrateError, reading};
use crate::postgres::settings::Settings;

/// How sleeping pods are rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// The advisory lock that they hold.
    pub key: i64,
    /// The channel that they listen to.
    pub channel: String,
}

impl Default for Ring {
    /// What the migrations install.
    fn default() -> Self {
        Self { key: 7_309_940_371, channel: "seawall".into() }
    }
}

/// Makes `ring` the one that is installed; whether it was another. After [`super::migrate`].
///
/// # Errors
/// As [`super::migrate`].
pub async fn set_ring(settings: &Settings, ring: &Ring) -> Result<bool, MigrateError> {
    let migrating = Migrating::begin(settings).await?;
    let present = installed(migrating.client()).await.map_err(reading)?;
    let Some(change) = change(present.as_ref(), ring) else { return Ok(false) };
    migrating.run("changing how pods are rung", &change).await?;
    Ok(true)
}

/// What [`set_ring`] would do, as a script; empty where nothing.
///
/// # Errors
/// As [`super::migrate`].
pub async fn ring_script(settings: &Settings, ring: &Ring) -> Result<String, MigrateError> {
    let migrating = Migrating::connect(settings).await?;
    let present = installed(migrating.client()).await.map_err(reading)?;
    // Where nothing is installed yet, the migrations before this install the default.
    let change = change(Some(&present.unwrap_or_default()), ring);
    Ok(change.map(|sql| format!("\nBEGIN;\n{sql}COMMIT;\n")).unwrap_or_default())
}

async fn installed(client: &Client) -> Result<Option<Ring>, Error> {
    let exists = "SELECT to_regprocedure('seawall.doorbell_key()') IS NOT NULL";
    if !client.query_one(exists, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client.query_one("SELECT seawall.doorbell_key(), seawall.doorbell_channel()", &[]).await?;
    Ok(Some(Ring { key: row.try_get(0)?, channel: row.try_get(1)? }))
}

fn change(present: Option<&Ring>, ring: &Ring) -> Option<String> {
    let present = present.filter(|present| *present != ring)?;
    let key = literal(&format!("SELECT {}::pg_catalog.int8", ring.key));
    let channel = literal(&format!("SELECT {}::pg_catalog.text", literal(&ring.channel)));
    let function = |name: &str, kind: &str, body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION seawall.{name}() RETURNS {kind} LANGUAGE sql IMMUTABLE PARALLEL SAFE AS {body};\n"
        )
    };
    let (key, channel) =
        (function("doorbell_key", "pg_catalog.int8", &key), function("doorbell_channel", "pg_catalog.text", &channel));
    Some(format!("{key}{channel}SELECT pg_catalog.pg_notify({}, '');\n", literal(&present.channel)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_ring_is_a_change_and_the_old_channel_hears_of_it() {
        let ring = Ring::default();
        assert_eq!(change(Some(&ring), &ring), None);
        assert_eq!(change(None, &ring), None, "there is no doorbell");
        let odd = Ring { key: -7, channel: "it's".into() };
        let sql = change(Some(&ring), &odd).expect("a change");
        assert!(sql.contains("AS 'SELECT -7::pg_catalog.int8'"), "{sql}");
        assert!(sql.contains("AS 'SELECT ''it''''s''::pg_catalog.text'"), "{sql}");
        assert!(sql.contains("pg_notify('seawall', '')"), "{sql}");
    }
}
