//! The floor: hyper with a fixed body and the headers that a client can't do without.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Names the port of a server of the bench's own.
pub const PORT_VARIABLE: &str = "SEAWALL_BENCH_PORT";
/// Names the file with the body, and so that this process is the server.
pub const BODY_VARIABLE: &str = "SEAWALL_BENCH_BARE_BODY";

pub fn is_asked_for() -> bool {
    std::env::var_os(BODY_VARIABLE).is_some()
}

/// The listener on [`PORT_VARIABLE`], like the service's own.
pub fn listen() -> TcpListener {
    let port = std::env::var(PORT_VARIABLE).expect("a port").parse().expect("a number");
    seawall::http::listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("a port")
}

pub fn serve() {
    let body = Bytes::from(std::fs::read(std::env::var(BODY_VARIABLE).expect("a file")).expect("readable"));
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(async {
        let listener = listen();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let body = body.clone();
            tokio::spawn(async move {
                let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                    let mut response = Response::new(Full::new(body.clone()));
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ =
                    http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}
