//! The pair table and its links under arbitrary sequences of what can happen to them; `fuzz/` runs the same.

mod model;

use model::table::{Operation, run};
use proptest::prelude::*;

fn operations(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(any::<[u8; 2]>().prop_map(Operation::from_bytes), length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_model(operations in operations(0..100)) {
        run(operations);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Long enough for every code to be used, freed and used again many times.
    #[test]
    fn agrees_with_the_model_for_long(operations in operations(1000)) {
        run(operations);
    }
}
