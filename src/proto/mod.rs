//! Wire protocols: bytes in, events out, bytes out. No socket, no clock.
