//! The OpenAPI document is generated, committed and compared.

use std::path::Path;

#[test]
fn the_committed_document_is_the_one_that_the_code_describes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    let mut generated = mesh_server::http::document().to_pretty_json().unwrap();
    generated.push('\n');
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "docs/reference/openapi.json is not what the code describes; run this test again with \
         UPDATE_EXPECT=1 and look at the difference"
    );
}
