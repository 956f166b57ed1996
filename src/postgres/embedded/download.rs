//! Fetches PostgreSQL where the machine has none: pg-embed's download, made safe against a bad end.
//!
//! pg-embed takes the presence of `initdb` for a complete installation and unpacks straight into its cache, so a
//! download cut short would be trusted for ever after. Here it unpacks beside the cache, the result is looked at, and
//! only then moved into its place in one step. The place is pg-embed's own
//! (`$XDG_CACHE_HOME/pg-embed/<os>/<arch>/<version>`), so that an installation which it made is used; as root, where
//! the account that runs the server can't enter a cache below `/root`, it is `/var/cache/seawall` instead.
//!
//! There is no checksum: the trust is in TLS and in Maven Central, or in the mirror that was named.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pg_embed::pg_access::PgAccess;
use pg_embed::pg_enums::OperationSystem;
use pg_embed::pg_errors::Error as PgError;
use pg_embed::pg_fetch::{PG_V17, PgFetchSettings};

use tokio::sync::Mutex;

use super::account::Account;
use super::binaries::{self, NEEDED};
use super::error::EmbeddedError;
use super::run_directory::{RunDirectory, random_hex};

/// A cache that every user of the machine can read; used as root only.
const SHARED_CACHE: &str = "/var/cache/seawall/pg-embed";

/// A mirror that sends nothing for so long will send nothing more. In looks, one a second. Longer than any unpacking
/// takes, during which nothing arrives either.
const PATIENCE: u32 = 90;

/// Between two looks at how much has come.
const LOOK: Duration = Duration::from_secs(1);

/// Two starts in one process must not fetch the same thing twice.
static FETCHING: Mutex<()> = Mutex::const_new(());

/// The `bin` directory of a PostgreSQL from the cache, or, if it isn't there, from the repository at `mirror`.
pub(super) async fn fetch(
    mirror: Option<String>,
    run: &RunDirectory,
    account: &Account,
) -> Result<PathBuf, EmbeddedError> {
    let mut settings = PgFetchSettings { version: PG_V17, ..PgFetchSettings::default() };
    if let Some(mirror) = mirror {
        mirror.trim_end_matches('/').clone_into(&mut settings.host);
    }
    if Path::new("/etc/alpine-release").exists() {
        settings.operating_system = OperationSystem::AlpineLinux;
    }
    let url = url(&settings);
    // It makes the second, which is there, and uses it for nothing here.
    let mut access = PgAccess::new(&settings, run.path())
        .await
        .map_err(|error| EmbeddedError::Download { url: url.clone(), problem: format!("no cache for it: {error}") })?;
    let place = place(&access.cache_dir, account)?;
    let _one_at_a_time = FETCHING.lock().await;
    if is_complete(&place) {
        return Ok(place.join("bin"));
    }

    tracing::info!(%url, to = %place.display(), "no PostgreSQL on this machine; fetching one");
    let staging = Staging::beside(&place)?;
    access.cache_dir.clone_from(&staging.0);
    access.init_db_exe = staging.0.join("bin/initdb");
    // In the run directory it is cleared away with the rest.
    access.zip_file_path = run.path().join("postgresql.jar");
    fetch_into(&access, &url).await?;
    install(&staging.0, &place, account, &url)?;
    Ok(place.join("bin"))
}

/// Where a package is unpacked, on the file system of the cache. Dropping it removes what was not moved away.
struct Staging(PathBuf);

impl Staging {
    fn beside(place: &Path) -> Result<Self, EmbeddedError> {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", &random_hex()?[..12]));
        Ok(Self(place.with_file_name(name)))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = fs::remove_dir_all(&self.0)
        {
            tracing::warn!(staging = %self.0.display(), %error, "a half fetched PostgreSQL could not be removed");
        }
    }
}

/// As pg-embed builds it.
fn url(settings: &PgFetchSettings) -> String {
    let (host, platform, version) = (&settings.host, settings.platform(), settings.version.0);
    format!(
        "{host}/maven2/io/zonky/test/postgres/embedded-postgres-binaries-{platform}/{version}/\
         embedded-postgres-binaries-{platform}-{version}.jar"
    )
}

/// `own` unless the account can't enter it.
fn place(own: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    if account.can_enter(own) {
        return Ok(own.to_owned());
    }
    // <os>/<arch>/<version>
    let tail: PathBuf = own.iter().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect();
    let shared = Path::new(SHARED_CACHE).join(tail);
    fs::create_dir_all(&shared).map_err(EmbeddedError::io("could not make", &shared))?;
    if account.can_enter(&shared) {
        return Ok(shared);
    }
    Err(EmbeddedError::Unreachable {
        path: shared,
        user: account.name().to_owned(),
        remedy: "open it, set XDG_CACHE_HOME to a directory that everybody can enter, or install postgresql",
    })
}

fn is_complete(place: &Path) -> bool {
    NEEDED.iter().all(|program| place.join("bin").join(program).is_file())
}

async fn fetch_into(access: &PgAccess, url: &str) -> Result<(), EmbeddedError> {
    let length = || fs::metadata(&access.zip_file_path).map_or(0, |file| file.len());
    let Some(result) = patiently(access.maybe_acquire_postgres(), length, PATIENCE).await else {
        let problem = format!("nothing came for {PATIENCE} s, after {} bytes", length());
        return Err(EmbeddedError::Download { url: url.to_owned(), problem });
    };
    result.map_err(|error| {
        let url = url.to_owned();
        match error {
            PgError::InvalidPgPackage | PgError::UnpackFailure | PgError::ReadFileError(_) => {
                EmbeddedError::Package { url, problem: error.to_string() }
            }
            PgError::DownloadFailure(problem) => EmbeddedError::Download { url, problem },
            PgError::ConversionFailure(problem) => {
                EmbeddedError::Download { url, problem: format!("the answer broke off: {problem}") }
            }
            other => EmbeddedError::Download { url, problem: other.to_string() },
        }
    })
}

/// What `work` gives; nothing if `progress` stood still for `patience` looks.
async fn patiently<T>(work: impl Future<Output = T>, progress: impl Fn() -> u64, patience: u32) -> Option<T> {
    tokio::pin!(work);
    let (mut last, mut still) = (progress(), 0);
    loop {
        tokio::select! {
            result = &mut work => return Some(result),
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = progress();
        still = if now == last { still + 1 } else { 0 };
        last = now;
        if still == patience {
            return None;
        }
    }
}

/// Looks at what was unpacked, tries it, and moves it to where it is looked for.
fn install(staging: &Path, place: &Path, account: &Account, url: &str) -> Result<(), EmbeddedError> {
    // A package for another machine shows itself here, too: its server does not run.
    if let Some(problem) = binaries::problem(&staging.join("bin"), account) {
        return Err(EmbeddedError::Package { url: url.to_owned(), problem });
    }
    // What stands there was incomplete: an empty directory, or what a broken download left to pg-embed.
    fs::remove_dir_all(place).map_err(EmbeddedError::io("could not replace", place))?;
    match fs::rename(staging, place) {
        // Another process was faster, with the same package.
        Err(_) if is_complete(place) => Ok(()),
        result => result.map_err(EmbeddedError::io("could not fill", place)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::patiently;

    #[tokio::test]
    async fn a_fetch_that_stands_still_is_given_up() {
        assert_eq!(patiently(std::future::pending::<()>(), || 7, 1).await, None);
    }

    #[tokio::test]
    async fn a_slow_fetch_that_goes_on_is_not_given_up() {
        let (looks, done) = (Cell::new(0), tokio::sync::Notify::new());
        let progress = || {
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                done.notify_one();
            }
            looks.get()
        };
        assert_eq!(patiently(done.notified(), progress, 1).await, Some(()));
    }
}
