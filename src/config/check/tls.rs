//! The rules of a listener's certificate: both files or neither, and fit for each other.

use std::path::PathBuf;

use crate::config::Certificates;
use crate::config::read::{Place, Reader};
use crate::tls::{Files, Part, Tls};

/// `tls_cert`, `tls_key` and `tls_client_ca`, in this order.
pub(super) type Paths = [Option<PathBuf>; 3];

const NAMES: [&str; 3] = ["tls_cert", "tls_key", "tls_client_ca"];

/// Checks the three keys of `[server]` or `[admin]`.
pub(super) fn check(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Paths> {
    let given = NAMES.map(|name| {
        let (text, _) = reader.text(place, name)?;
        // Not remembered among the files of the configuration: certificates are watched on their own.
        Some((!text.is_empty()).then(|| reader.sources.base_dir.join(text)))
    });
    let [Some(cert), Some(key), Some(client_ca)] = given else { return None };
    let files = match (cert, key, client_ca) {
        (None, None, None) => return Some([None, None, None]),
        (Some(cert), Some(key), client_ca) => Files { cert, key, client_ca },
        (None, None, Some(_)) => {
            let message = "clients' certificates are asked for over TLS alone; set tls_cert and tls_key as well";
            reader.report(&place.at("tls_client_ca"), message);
            return None;
        }
        (cert, _, _) => {
            let (there, missing) = if cert.is_some() { (NAMES[0], NAMES[1]) } else { (NAMES[1], NAMES[0]) };
            reader.report(&place.at(there), format!("it is of no use alone; set {missing} as well"));
            return None;
        }
    };
    if reader.sources.certificates == Certificates::Verified
        && let Err(unfit) = Tls::new(files.clone())
    {
        let name = match unfit.part {
            Part::Cert => NAMES[0],
            Part::Key => NAMES[1],
            Part::ClientCa => NAMES[2],
        };
        reader.report(&place.at(name), unfit.reason);
        return None;
    }
    Some([Some(files.cert), Some(files.key), files.client_ca])
}
