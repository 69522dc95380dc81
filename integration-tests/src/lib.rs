//! Nothing of its own: the tests are in `tests/`, the system that they start is `jit_simulator::stack`.
