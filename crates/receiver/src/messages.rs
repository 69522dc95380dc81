//! The sentences in answers, in English, and in Korean for whoever prefers it (`Accept-Language`). Errors are English
//! only.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

/// The language of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English, the default.
    English,
    /// Korean.
    Korean,
}

impl Language {
    /// Korean where `Accept-Language` gives it more weight than English, or the same and names it first.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let text = headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let mut best = (0.0, Self::English);
        for (range, weight) in weighted(text) {
            let language = match range.split('-').next() {
                Some(tag) if tag.eq_ignore_ascii_case("ko") => Self::Korean,
                Some(tag) if tag.eq_ignore_ascii_case("en") => Self::English,
                _ => continue,
            };
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    fn pick(self, english: String, korean: String) -> String {
        match self {
            Self::English => english,
            Self::Korean => korean,
        }
    }

    /// A queued job was taken.
    #[must_use]
    pub fn queued(self, job: impl std::fmt::Display) -> String {
        self.pick(
            format!("job {job} was taken: a runner is made for it within the limits"),
            format!("Runner 생성 요청이 접수되었습니다: {job}"),
        )
    }

    /// `GET /webhook/test`.
    #[must_use]
    pub fn alive(self) -> String {
        self.pick(
            "the webhook receiver is running".into(),
            "Webhook Receiver가 동작 중입니다.".into(),
        )
    }

    /// A limit was set.
    #[must_use]
    pub fn limit_set(self, limit: u64) -> String {
        self.pick(
            format!("the limit is now {limit}"),
            format!("커스텀 제한이 설정되었습니다: {limit}"),
        )
    }

    /// Several limits were set.
    #[must_use]
    pub fn limits_set(self, count: usize) -> String {
        self.pick(
            format!("limits of {count} organizations were set"),
            format!("{count}개 Organization의 제한이 설정되었습니다."),
        )
    }

    /// A limit was dropped.
    #[must_use]
    pub fn limit_dropped(self, default: u64) -> String {
        self.pick(
            format!("the limit is the default again: {default}"),
            format!("커스텀 제한이 삭제되었습니다. 기본값({default}) 사용"),
        )
    }

    /// There was no limit to drop.
    #[must_use]
    pub fn no_limit_to_drop(self, default: u64) -> String {
        self.pick(
            format!("there was no limit of its own; the default is {default}"),
            format!("커스텀 제한이 없습니다. 기본값({default}) 사용"),
        )
    }

    /// Limits were read from the file.
    #[must_use]
    pub fn limits_loaded(self, count: usize) -> String {
        self.pick(
            format!("limits of {count} organizations were loaded"),
            format!("설정 파일에서 {count}개 Organization의 제한이 로드되었습니다."),
        )
    }

    /// Redis holds limits already.
    #[must_use]
    pub fn limits_kept(self) -> String {
        self.pick(
            "Redis holds limits already, which were kept; force=true replaces them".into(),
            "Redis에 기존 설정이 있어 로드하지 않았습니다. force=true로 강제 리로드할 수 있습니다.".into(),
        )
    }

    /// An organization was paused.
    #[must_use]
    pub fn paused(self) -> String {
        self.pick(
            "no runner is made for it until it is resumed; those that run go on".into(),
            "Organization이 일시 중지되었습니다. 실행 중인 Runner는 유지됩니다.".into(),
        )
    }

    /// An organization was resumed.
    #[must_use]
    pub fn resumed(self) -> String {
        self.pick(
            "runners are made for it again".into(),
            "Organization이 재개되었습니다.".into(),
        )
    }

    /// What held a job back is tried again, or nothing did.
    #[must_use]
    pub fn retried(self, something: bool) -> String {
        if something {
            self.pick(
                "one runner tries it now".into(),
                "Runner 하나로 지금 다시 시도합니다.".into(),
            )
        } else {
            self.pick(
                "nothing that may be tried earlier holds it back; GET /jobs/{id} says what it waits for".into(),
                "앞당겨 시도할 대기가 없습니다. GET /jobs/{id}에서 이유를 확인하세요.".into(),
            )
        }
    }

    /// A runner is to go, whatever GitHub says.
    #[must_use]
    pub fn removal_forced(self) -> String {
        self.pick(
            "its pod is ended, whatever GitHub says of it; its registration is looked up at GitHub later".into(),
            "GitHub의 응답과 관계없이 Pod를 종료합니다. GitHub 등록은 나중에 확인합니다.".into(),
        )
    }

    /// A runner is to go.
    #[must_use]
    pub fn removal_asked(self) -> String {
        self.pick(
            "it is removed at GitHub first, then its pod; a runner that GitHub calls busy lives on".into(),
            "Runner를 삭제합니다: GitHub 등록 해제 후 Pod를 삭제하며, 작업 중인 Runner는 유지됩니다.".into(),
        )
    }

    /// A runner is gone.
    #[must_use]
    pub fn already_gone(self) -> String {
        self.pick("it is gone".into(), "Runner가 삭제되었습니다.".into())
    }

    /// A dead letter is back in its stream.
    #[must_use]
    pub fn requeued(self) -> String {
        self.pick(
            "it is back in its stream; what cannot be applied this time either comes back here".into(),
            "원래 Stream으로 되돌렸습니다. 다시 실패하면 Dead Letter로 돌아옵니다.".into(),
        )
    }

    /// A dead letter held a reservation.
    #[must_use]
    pub fn reservation_gone(self) -> String {
        self.pick(
            "it held a reservation, which was dropped long ago: demand has made another since. The letter was dropped, \
             nothing was put back".into(),
            "이미 만료된 Runner 예약입니다. 필요한 Runner는 새로 예약되므로 되돌리지 않고 삭제했습니다.".into(),
        )
    }

    /// A dead letter was dropped.
    #[must_use]
    pub fn dropped(self) -> String {
        self.pick(
            "it was dropped; what it says happens no more".into(),
            "Dead Letter가 삭제되었습니다.".into(),
        )
    }

    /// A reconcile was asked for.
    #[must_use]
    pub fn reconcile_asked(self) -> String {
        self.pick(
            "a worker compares the ledger with the real runners now".into(),
            "실제 Runner와의 상태 동기화를 요청했습니다.".into(),
        )
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Language {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// The parts of an `Accept…` header with their weights, in their order. What cannot be read weighs nothing.
pub(crate) fn weighted(text: &str) -> impl Iterator<Item = (&str, f32)> {
    text.split(',').map(|part| {
        let mut pieces = part.split(';').map(str::trim);
        let range = pieces.next().unwrap_or_default();
        let weight = pieces.find_map(|piece| piece.strip_prefix("q=")).map_or(1.0, |q| {
            q.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0)
        });
        (range, weight)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(accept: &str) -> Language {
        Language::of(&HeaderMap::from_iter([(
            header::ACCEPT_LANGUAGE,
            accept.parse().expect("a header"),
        )]))
    }

    #[test]
    fn korean_is_for_whoever_prefers_it() {
        for accept in [
            "ko",
            "ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7",
            "fr, ko;q=0.5",
            "en;q=0.3, KO;q=0.8",
        ] {
            assert_eq!(language(accept), Language::Korean, "{accept}");
        }
        for accept in ["", "en-US,en;q=0.9,ko;q=0.8", "*", "fr", "ko;q=0", "ko;q=x, en", "kok"] {
            assert_eq!(language(accept), Language::English, "{accept}");
        }
        assert_eq!(Language::of(&HeaderMap::new()), Language::English);
    }
}
