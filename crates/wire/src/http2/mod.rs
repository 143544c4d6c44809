//! What stands between HTTP/2 and HTTP/1: requests and responses of HTTP/2 (RFC 9113 §8) as heads of HTTP/1.1, fields
//! that do not cross, and what of a connection's frames must be counted.
//!
//! What it does not do: it decodes neither HPACK nor the content of frames, and keeps no streams. Whoever does hands
//! over names and values, which are judged here as if nobody had looked at them before.

mod request;
mod response;
mod watch;

pub use request::{Body, Pseudo, RequestFault, encode_request, encode_trailers, passes};
pub use response::{Asked, ResponseFault, encode_interim, encode_response};
pub use watch::{CONTROL_WINDOW, Flood, FrameWatch, PREFACE, Rate};
