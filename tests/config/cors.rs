//! The rules of `[cors]`.

use std::time::Duration;

use super::{accepted, refused, refused_for};

#[test]
fn origins_are_spelt_as_browsers_do() {
    assert_eq!(accepted("").cors, None);
    let cors = accepted(
        "[cors]\norigins = [\"https://app.example\", \"http://localhost:5173\", \"https://[::1]:8443\"]\nallow_credentials = true\n\
         headers = [\"x-request-id\"]\n",
    )
    .cors
    .expect("a section");
    assert_eq!((cors.origins.len(), cors.allow_credentials, cors.max_age), (3, true, Duration::from_secs(600)));
    assert!(
        cors.headers.iter().any(|name| name == "x-request-id")
            && cors.headers.iter().any(|name| name == "authorization")
    );
    assert_eq!(accepted("cors.origins = \"*\"").cors.expect("a section").origins, ["*"]);
    for (origin, remedy) in [
        ("app.example", "no scheme"),
        ("https://app.example/", "no slash"),
        ("https://app.example/shop", "no path"),
        ("https://me@app.example", "no user"),
        ("https://App.example", "lower case"),
        ("https://*.example", "no pattern"),
        ("https://", "host"),
        ("HTTPS://app.example", "lower case"),
        ("https://app.example:443", "leave out the port"),
        ("http://app.example:80", "leave out the port"),
        ("null", "no scheme"),
        ("https://b\u{fc}cher.example", "xn--"),
    ] {
        refused_for(&format!("cors.origins = [\"{origin}\"]"), "cors.origins", remedy);
    }
    accepted("cors.origins = [\"http://app.example:443\"]");
}

#[test]
fn the_star_stands_alone_and_without_credentials() {
    refused_for("cors.origins = []", "cors.origins", "nobody is let in");
    refused_for("cors.origins = [\"*\", \"https://a.example\"]", "cors.origins", "write it alone");
    refused_for("cors.origins = [\"*\"]\ncors.allow_credentials = true", "cors.allow_credentials", "name the origins");
    let all = "cors.origins = [\"a\"]\ncors.max_age = \"2d\"\ncors.headers = [\"a b\"]\ncors.allow_credentials = 1";
    assert_eq!(refused(all).len(), 4);
}
