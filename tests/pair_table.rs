//! The pair table and its links under arbitrary sequences of operations; `fuzz/` runs the same.

mod model;

use model::table::{NO_SIDE, Operation, TableLimits, run, run_all};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// The number of cases, and the file that keeps failing ones to be tried first.
fn config(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("tests/regressions/pair_table.txt");
    ProptestConfig { failure_persistence: Some(Box::new(kept)), ..ProptestConfig::with_cases(cases) }
}

fn operations(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(any::<[u8; 2]>().prop_map(Operation::from_bytes), length)
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn agrees_with_the_model(operations in operations(0..100)) {
        run(operations);
    }
}

proptest! {
    #![proptest_config(config(20))]

    /// The sequences are long enough to use, free and reuse every code many times.
    #[test]
    fn agrees_with_the_model_in_long_sequences(operations in operations(1000)) {
        run(operations);
    }
}

/// Enumerates every sequence of seven steps instead of sampling.
///
/// It does so with room for two codes, for one code, and for two codes of which one may wait. `ARC_RELAY_STEPS=8` takes
/// fifteen times as long.
#[test]
fn agrees_with_the_model_in_every_small_world() {
    let steps = std::env::var("ARC_RELAY_STEPS").map_or(7, |steps| steps.parse().expect("a number"));
    let clients = [[0, NO_SIDE], [1, NO_SIDE]];
    for (codes, waiting, all) in [(2, 2, 2_494_671), (1, 1, 1_273_113), (2, 1, 1_497_609)] {
        let sequences = run_all(steps, TableLimits { codes, waiting }, &clients);
        println!("{sequences} sequences of {steps} steps, with room for {codes}, of which {waiting} may wait");
        assert!(steps != 7 || sequences == all, "{sequences} sequences instead of {all}");
    }
}

/// The same for one code, whose clients are of two side identities or none, in sequences of six steps.
///
/// The second world has a second code without side identities, and room for one side that waits.
#[test]
fn agrees_with_the_model_in_every_small_world_with_sides() {
    let steps = std::env::var("ARC_RELAY_STEPS").map_or(6, |steps| steps.parse().expect("a number"));
    let (named, crowded) = ([[0, 0], [0, 1], [0, NO_SIDE]], [[0, 0], [0, 1], [1, NO_SIDE]]);
    for (clients, waiting, all) in [(named, 2, 928_814), (crowded, 1, 533_516)] {
        let sequences = run_all(steps, TableLimits { codes: 2, waiting }, &clients);
        println!("{sequences} sequences of {steps} steps with sides, of which {waiting} may wait");
        assert!(steps != 6 || sequences == all, "{sequences} sequences instead of {all}");
    }
}
