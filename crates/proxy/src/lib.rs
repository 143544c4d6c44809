//! The data plane: workers, listeners, HTTP/1, TCP.
