//! Tests of the loader; the data stands in the tests, so that lines and columns can be seen.
