//! Every golden case through the model, loss, gradients and saliency.

use std::path::Path;

use burn::tensor::{DType, Device};
use mlrm_bench::verify::verify;
use mlrm_config::MatmulPrecision;

#[test]
fn all_cases_are_within_tolerance() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cases");
    let mut cases = 0;
    for entry in std::fs::read_dir(folder).expect("golden cases") {
        let path = entry.expect("an entry").path();
        let (report, _) = verify(&path, &Device::flex(), DType::F32, MatmulPrecision::F32)
            .expect("the case runs");
        let failed: Vec<_> = report.comparisons.iter().filter(|c| !c.passed).collect();
        assert!(failed.is_empty(), "{}: {failed:#?}", report.case);
        assert!(
            report.comparisons.len() > 15,
            "{}: too few tensors",
            report.case
        );
        cases += 1;
    }
    // One that vanishes is to be missed.
    assert_eq!(cases, 41);
}
