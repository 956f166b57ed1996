//! What operators see: metrics here, events through `tracing`. The only module that knows `prometheus`.

mod handles;
mod labels;
pub mod metrics;
mod register;
