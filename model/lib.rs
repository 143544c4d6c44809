//! Nothing: the models are tests. Each is a short story of two or three threads, which loom runs in every order that
//! their steps on shared memory can have, and with every value that the memory model lets them see.
