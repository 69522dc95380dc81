//! A server for tests that answers what it is told to, and can misbehave as no HTTP library lets one: cut, hang, lie.
//! One request a connection.
#![allow(clippy::unwrap_used, unreachable_pub)]
#![allow(dead_code, reason = "each test file uses its part of it")]

pub mod tls;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jit_github::{Client, ClientOptions};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

/// What the client of every test sends as its token.
pub const TOKEN: &str = "ghp_0123456789secret";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Option<Value>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.query.as_deref().unwrap_or_default();
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What it does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Answers.
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// Answers with these bytes as they are, and closes.
    Raw(Vec<u8>),
    /// Closes without a byte.
    Cut,
    /// Sends these bytes, if any, and then nothing for ever.
    Hang(Vec<u8>),
    /// A 200 whose body never ends.
    Endless,
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
    }

    pub fn empty(status: u16) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn text(status: u16, body: &str) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

/// The server; it ends with the test's runtime.
pub struct Mock {
    pub url: Url,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Mock {
    pub async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let (reply, log) = (Arc::new(reply), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, reply.clone(), log.clone()));
            }
        });
        Self { url, seen }
    }

    /// Always the same reply.
    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn client(&self) -> Client {
        client(self.url.clone())
    }
}

/// A client with short time-outs.
pub fn client(api_url: Url) -> Client {
    Client::new(options(api_url)).unwrap()
}

pub fn options(api_url: Url) -> ClientOptions {
    let mut options = ClientOptions::new(api_url, Arc::new(|| TOKEN.into()));
    options.timeout = Duration::from_secs(10);
    options
}

/// Answers one request on `stream`.
pub async fn serve<S>(mut stream: S, reply: Arc<impl Fn(&Request) -> Reply>, seen: Arc<Mutex<Vec<Request>>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(request) = read(&mut stream).await else {
        return;
    };
    let reply = reply(&request);
    seen.lock().unwrap().push(request);
    // The client may go away first; then there is nobody to tell.
    let _ = match reply {
        Reply::Answer { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
            if !matches!(status, 204 | 304) {
                head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
            }
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).await
        }
        Reply::Raw(bytes) => stream.write_all(&bytes).await,
        Reply::Cut => Ok(()),
        Reply::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            std::future::pending().await
        }
        Reply::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
            while stream.write_all(&[b' '; 1 << 16]).await.is_ok() {}
            Ok(())
        }
    };
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap(), first.next().unwrap());
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, n)| n.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        stream.read_buf(&mut body).await.unwrap();
    }
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        headers,
        body: (length > 0).then(|| serde_json::from_slice(&body).unwrap()),
    })
}
