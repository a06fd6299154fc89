//! What the program asks of the OS: one narrow door, the only unsafe code of the server.
