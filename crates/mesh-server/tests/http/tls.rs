//! TLS: the same API behind a certificate.

use mesh_server::Server;

use crate::config;

#[tokio::test]
async fn the_api_is_served_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let flags = [
        ("listen", "localhost:0"),
        ("tls-cert", cert.to_str().unwrap()),
        ("tls-key", key.to_str().unwrap()),
    ];
    let server = Server::start(config(dir.path(), &flags)).await.unwrap();
    assert!(server.url().starts_with("https://localhost:"), "{}", server.url());
    drop(rustls::crypto::ring::default_provider().install_default());
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
    let health = client.get(format!("{}/health", server.url())).send().await.unwrap();
    assert_eq!(health.status(), 200);
    // Who does not know the certificate, or does not speak TLS, gets nothing.
    assert!(crate::plain().get(format!("{}/health", server.url())).send().await.is_err());
    let address = server.url().trim_start_matches("https://").to_owned();
    let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = crate::slow::exchange(&address, request).await;
    assert!(!answer.contains("200"), "{answer}");
    server.shutdown().await;
}

#[tokio::test]
async fn files_that_are_no_certificates_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("some.pem");
    std::fs::write(&file, "hello").unwrap();
    let path = file.to_str().unwrap();
    let config = config(dir.path(), &[("tls-cert", path), ("tls-key", path)]);
    let problem = Server::start(config).await.unwrap_err();
    assert_eq!(problem.code, "TLS_UNUSABLE");
}
