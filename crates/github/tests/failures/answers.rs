//! What an answer means.

use crate::common::{Mock, Reply, TOKEN};
use jit_github::{BackOff, Error};

use crate::{acme, error_of, message};

#[tokio::test]
async fn every_refusal_says_what_backs_off() {
    use BackOff::{All, Class, Credential, Organization};
    let secondary = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
    let (sure, uncertain) = (false, true);
    for (reply, variant, backs_off, retry_after, is_uncertain) in [
        (message(400, "Problems parsing JSON"), "Invalid", Class, None, sure),
        (message(401, "Bad credentials"), "Unauthorized", Credential, None, sure),
        (
            message(403, "Resource not accessible by integration"),
            "Forbidden",
            Organization,
            None,
            sure,
        ),
        (
            message(403, "Must have admin rights").with("x-ratelimit-remaining", "4000"),
            "Forbidden",
            Organization,
            None,
            sure,
        ),
        (
            message(403, "API rate limit exceeded for user ID 1.")
                .with("date", "Sun, 22 Nov 2026 00:00:00 GMT")
                .with("x-ratelimit-remaining", "0")
                .with("x-ratelimit-reset", "1795305900"),
            "PrimaryLimit",
            Credential,
            Some(300),
            sure,
        ),
        (
            message(403, "API rate limit exceeded")
                .with("date", "Sun, 22 Nov 2026 00:00:00 GMT")
                .with("x-ratelimit-remaining", "0")
                .with("x-ratelimit-reset", "1795305900")
                .with("x-ratelimit-resource", "actions_runner_registration"),
            "RegistrationLimit",
            Organization,
            Some(300),
            sure,
        ),
        (
            message(403, secondary).with("retry-after", "42"),
            "SecondaryLimit",
            Credential,
            Some(42),
            sure,
        ),
        (message(403, secondary), "SecondaryLimit", Credential, Some(60), sure),
        (
            message(
                403,
                "Maximum number of login attempts exceeded. Please try again later.",
            ),
            "Unauthorized",
            Credential,
            None,
            sure,
        ),
        (message(404, "Not Found"), "NotFound", Organization, None, sure),
        (
            message(409, "Already exists - A runner with the name *** already exists."),
            "NameTaken",
            Class,
            None,
            uncertain,
        ),
        (message(410, "Gone"), "Refused", Organization, None, sure),
        (message(422, "Validation Failed"), "Invalid", Class, None, sure),
        (
            message(429, "Slow down").with("retry-after", "7"),
            "SecondaryLimit",
            Credential,
            Some(7),
            sure,
        ),
        (message(429, "Slow down"), "SecondaryLimit", Credential, Some(60), sure),
        (message(500, "Server Error"), "Server", All, None, uncertain),
        (
            Reply::text(502, "<html>Bad Gateway</html>"),
            "Server",
            All,
            None,
            uncertain,
        ),
        (
            message(503, "Maintenance").with("retry-after", "120"),
            "Server",
            All,
            Some(120),
            uncertain,
        ),
        (Reply::text(201, "garbage"), "Unreadable", All, None, uncertain),
        (Reply::text(201, ""), "Unreadable", All, None, uncertain),
        (
            Reply::text(201, r#"{"runner":{"id":1},"encoded_jit_config":""}"#),
            "Unreadable",
            All,
            None,
            uncertain,
        ),
        (
            Reply::text(201, r#"{"runner":"c2VjcmV0","encoded_jit_config":"c2VjcmV0"}"#),
            "Unreadable",
            All,
            None,
            uncertain,
        ),
        (Reply::Cut, "Interrupted", All, None, uncertain),
        (
            Reply::Raw(b"HTTP/1.1 201 X\r\ncontent-length: 99\r\n\r\n{".to_vec()),
            "Interrupted",
            All,
            None,
            uncertain,
        ),
        (
            Reply::Raw(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
            "Interrupted",
            All,
            None,
            uncertain,
        ),
        (
            Reply::empty(302).with("location", "https://elsewhere.example/login?x=1"),
            "Redirected",
            All,
            None,
            sure,
        ),
    ] {
        let told = format!("{reply:?}");
        let error = error_of(reply).await;
        assert!(
            format!("{error:?}").starts_with(&format!("{variant} ")),
            "{error:?} for {told}"
        );
        assert_eq!(error.backs_off(), backs_off, "{error:?}");
        assert_eq!(error.retry_after().map(|wait| wait.as_secs()), retry_after, "{error:?}");
        assert_eq!(error.uncertain(), is_uncertain, "{error:?}");
        let text = error.to_string();
        assert!(
            text.starts_with(r#"JIT config for runner "jit-runner-7-1" at orgs/acme: "#),
            "{text}"
        );
        assert!(!text.contains("c2VjcmV0") && !text.contains(TOKEN), "{text}");
    }
}

#[tokio::test]
async fn refusals_whose_text_does_not_come_keep_their_status() {
    let error = error_of(Reply::Raw(b"HTTP/1.1 401 X\r\ncontent-length: 99\r\n\r\n{".to_vec())).await;
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_repeats_the_token_is_not_believed() {
    let error = error_of(message(403, &format!("no\r\n\u{1b}[2J Authorization: Bearer {TOKEN}"))).await;
    assert!(
        error.to_string().contains("no [2J Authorization: Bearer [token]"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_deletion_is_confirmed_by_204_alone() {
    for reply in [Reply::text(200, "<html>Sign in</html>"), Reply::empty(202)] {
        let error = Mock::always(reply)
            .await
            .client()
            .delete_runner(&acme(), 1)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    }
}
