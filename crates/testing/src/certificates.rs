//! Certificates for servers that speak TLS.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate authority of a company's own, a server's certificate and a client's, as PEM files.
pub fn certificates(dir: &Path) -> [PathBuf; 5] {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let paths = ["ca.crt", "redis.crt", "redis.key", "client.crt", "client.key"].map(|name| dir.join(name));
    std::fs::write(&paths[0], authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    for (cert, private) in [(&paths[1], &paths[2]), (&paths[3], &paths[4])] {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        // Of the same name as its issuer it would pass for self-signed.
        leaf.distinguished_name.push(DnType::CommonName, "leaf");
        std::fs::write(cert, leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(private, key.serialize_pem()).unwrap();
    }
    paths
}
