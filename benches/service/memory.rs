//! How much memory does an entry take, all told?
//!
//! The proportional set size of the process with the entries less that of the empty service: what the store's own
//! bookkeeping claims is to be compared with it.

use super::client;
use super::process::Child;
use super::report::grouped;
use super::shop::{self, PRODUCTS, Shop};

pub async fn ask(shop: &Shop) -> String {
    let path = |id| format!("/v1/queries/product?id={id}");
    let seawall = Child::seawall(&shop.config(shop::PRODUCT)).await;
    // What the process needs to work at all is there after some fills.
    client::sweep(seawall.port(), 1..101, path).await;
    let empty = seawall.memory();
    client::sweep(seawall.port(), 1..PRODUCTS + 1, path).await;
    let full = seawall.memory();
    format!(
        "{} entries of 373-byte bodies take {:.0} bytes each above the empty service ({empty} to {full} KiB, \
         proportional set size).\n",
        grouped(PRODUCTS),
        (full - empty) as f64 * 1024.0 / f64::from(PRODUCTS),
    )
}
