//! The end-to-end tests are in `tests/e2e`: one program that runs the real podkit.
