//! TLS: authorities of a company's own, servers that are trusted by their very certificate, and HTTP/2, which
//! github.com speaks.
#![allow(clippy::unwrap_used)]

mod common;

use common::tls::{Identity, own_authority, params, server};
use common::{client, options};
use jit_github::{Client, Deletion, Error, Scope};
use rustls::{ALL_VERSIONS, version};
use url::Url;

/// Makes a call; `pem` is the file of certificates.
async fn call(url: &Url, pem: Option<&str>) -> Result<(), String> {
    let scope = Scope::Organization("acme".into());
    let mut with = options(url.clone());
    with.extra_ca_pem = pem.map(|pem| pem.as_bytes().to_vec());
    match Client::new(with).unwrap().delete_runner(&scope, 1).await {
        Ok(deletion) => {
            assert_eq!(deletion, Deletion::Deleted);
            Ok(())
        }
        Err(error) => {
            assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
            Err(error.to_string())
        }
    }
}

/// Makes a call that the server's certificate must prevent, with this in the error.
async fn refused(url: &Url, pem: Option<&str>, says: &str) {
    let error = call(url, pem).await.unwrap_err();
    assert!(error.contains(says), "{says:?} is not in {error:?}");
}

#[tokio::test]
async fn an_extra_authority_is_trusted_and_an_unknown_one_is_not() {
    let (identity, authority) = Identity::signed(&params(&["localhost"], None));
    let (_, another) = Identity::signed(&params(&["localhost"], None));
    let url = server(identity, "http/1.1", ALL_VERSIONS).await;
    let says = "signed by an authority that is not trusted here: put that authority's certificate, or the server's \
     own, into GITHUB_CA_FILE (UnknownIssuer)";
    refused(&url, None, says).await;
    refused(
        &url,
        Some(&another),
        "where GITHUB_CA_FILE holds an older certificate of the same name, put the present one there",
    )
    .await;
    call(&url, Some(&authority)).await.unwrap();
    call(&url, Some(&(another + &authority))).await.unwrap();
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_does() {
    let (identity, authority) = Identity::signed(&params(&["localhost"], None));
    let mut with = options(server(identity, "h2", ALL_VERSIONS).await);
    with.extra_ca_pem = Some(authority.into_bytes());
    let client = Client::new(with).unwrap();
    let scope = Scope::Organization("acme".into());
    for _ in 0..3 {
        assert_eq!(client.delete_runner(&scope, 1).await.unwrap(), Deletion::Deleted);
    }
}

#[tokio::test]
async fn a_server_is_trusted_by_its_very_certificate() {
    for (identity, without_it) in [
        (
            Identity::own(&own_authority(&["localhost"], Some("localhost"))),
            "is an authority's (CA:TRUE)",
        ),
        (
            Identity::own(&own_authority(&[], Some("localhost"))),
            "is an authority's (CA:TRUE)",
        ),
        (
            Identity::own(&params(&["localhost"], None)),
            "an authority that is not trusted",
        ),
        (
            Identity::own(&params(&["*.example.com", "localhost"], Some("another"))),
            "an authority that is not trusted",
        ),
        (
            Identity::own(&params(&[], Some("LocalHost"))),
            "an authority that is not trusted",
        ),
        (Identity::own(&params(&[], None)), "an authority that is not trusted"),
        (Identity::version_1(), "is of X.509 version 1"),
        // Signed by an authority that is in no file.
        (
            Identity::signed(&params(&["localhost"], None)).0,
            "an authority that is not trusted",
        ),
    ] {
        for versions in [&[&version::TLS12], &[&version::TLS13]] {
            let pem = identity.pem.clone();
            let identity = Identity {
                certificate: identity.certificate.clone(),
                pem: String::new(),
                key: identity.key.clone_key(),
            };
            let url = server(identity, "http/1.1", versions).await;
            call(&url, Some(&pem)).await.unwrap();
            let (_, authority) = Identity::signed(&params(&["localhost"], None));
            call(&url, Some(&(authority.clone() + &pem))).await.unwrap();
            refused(&url, None, without_it).await;
            refused(&url, Some(&authority), "GITHUB_CA_FILE").await;
        }
    }
}

#[tokio::test]
async fn another_certificate_than_the_one_in_the_file_is_refused() {
    // All but the key is the same.
    for params in [
        own_authority(&["localhost"], Some("localhost")),
        own_authority(&[], Some("localhost")),
        params(&["localhost"], Some("localhost")),
        params(&[], Some("localhost")),
    ] {
        let url = server(Identity::own(&params), "http/1.1", ALL_VERSIONS).await;
        call(&url, Some(&Identity::own(&params).pem)).await.unwrap_err();
    }
    let url = server(Identity::version_1(), "http/1.1", ALL_VERSIONS).await;
    refused(
        &url,
        Some(&Identity::own(&own_authority(&[], Some("localhost"))).pem),
        "is of X.509 version 1",
    )
    .await;
    // The file's is of version 1, and the server's claims to be the same.
    let url = server(Identity::own(&params(&[], Some("localhost"))), "http/1.1", ALL_VERSIONS).await;
    call(&url, Some(&Identity::version_1().pem)).await.unwrap_err();
}

#[tokio::test]
async fn the_certificate_alone_is_not_enough() {
    let stolen = [
        Identity::own(&own_authority(&["localhost"], None)),
        Identity::own(&params(&[], Some("localhost"))),
        Identity::version_1(),
    ];
    for Identity { certificate, pem, .. } in stolen {
        for versions in [&[&version::TLS12], &[&version::TLS13]] {
            let key = Identity::own(&params(&["localhost"], None)).key;
            let url = server(
                Identity {
                    certificate: certificate.clone(),
                    pem: String::new(),
                    key,
                },
                "http/1.1",
                versions,
            )
            .await;
            refused(&url, Some(&pem), "a signature does not fit the server's certificate").await;
        }
    }
}

#[tokio::test]
async fn a_named_certificate_must_be_for_the_server_and_of_today() {
    for params in [
        params(&["github.example.com"], None),
        params(&["github.example.com"], Some("localhost")),
        params(&[], Some("github.example.com")),
        own_authority(&["github.example.com", "127.0.0.1"], None),
    ] {
        let identity = Identity::own(&params);
        let pem = identity.pem.clone();
        let url = server(identity, "http/1.1", ALL_VERSIONS).await;
        refused(
            &url,
            Some(&pem),
            "the server's certificate is not for the name localhost: set GHES_URL to a name that it is for",
        )
        .await;
        refused(&url, Some(&pem), "github.example.com").await;
    }
    for (not_before, not_after, says) in [
        (2001, 2002, "has expired: give the server a new one"),
        (4001, 4002, "is not valid yet"),
    ] {
        let mut params = params(&["localhost"], None);
        params.not_before = rcgen::date_time_ymd(not_before, 1, 1);
        params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        let identity = Identity::own(&params);
        let pem = identity.pem.clone();
        refused(&server(identity, "http/1.1", ALL_VERSIONS).await, Some(&pem), says).await;
        let (identity, authority) = Identity::signed(&params);
        refused(
            &server(identity, "http/1.1", ALL_VERSIONS).await,
            Some(&authority),
            says,
        )
        .await;
    }
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_must_be_for_the_server() {
    for (names, common_name, says) in [
        (&["github.example.com"][..], None, "is not for the name localhost"),
        (
            &[],
            Some("localhost"),
            "holds no name as subjectAltName, and is trusted only where this very certificate is in GITHUB_CA_FILE",
        ),
    ] {
        let (identity, authority) = Identity::signed(&params(names, common_name));
        refused(
            &server(identity, "http/1.1", ALL_VERSIONS).await,
            Some(&authority),
            says,
        )
        .await;
    }
}

#[tokio::test]
async fn what_is_no_certificate_has_no_such_sentence() {
    let closed = "https://127.0.0.1:1/api/v3".parse().unwrap();
    let error = client(closed)
        .delete_runner(&Scope::Organization("acme".into()), 1)
        .await
        .unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
    assert!(!error.to_string().contains("certificate"), "{error}");
}
