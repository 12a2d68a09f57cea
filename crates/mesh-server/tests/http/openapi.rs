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

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let document = serde_json::to_value(mesh_server::http::document()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{method} {path} shares the name {name}");
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(summary.ends_with('.'), "{method} {path} does not say what it does");
        }
    }
}
