//! How to reach Kubernetes: as a kubeconfig says, else as the pod's service account does.
//!
//! The proxy of `HTTPS_PROXY` is for calls of GitHub. The API server is reached directly, or through the kubeconfig's
//! own `proxy-url`, whatever the variables say. kube's `Config::infer` would take `HTTPS_PROXY` where the kubeconfig
//! names no proxy, and it compares `NO_PROXY` with the name of the proxy instead of that of the API server.

use anyhow::Context as _;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// What `$KUBECONFIG` (or `~/.kube/config`) says, else the pod's service account.
///
/// # Errors
/// Neither can be used.
pub(super) async fn find() -> anyhow::Result<Config> {
    let mut config = match from_file().await {
        Ok(config) => config,
        Err(error) => Config::incluster()
            .map_err(|pod| anyhow::anyhow!("{error:#}; {pod}"))
            .context("neither $KUBECONFIG nor a pod's service account says how to reach Kubernetes")?,
    };
    config.apply_debug_overrides();
    Ok(config)
}

async fn from_file() -> anyhow::Result<Config> {
    let kubeconfig = Kubeconfig::read()?;
    let proxy = proxy_url(&kubeconfig)
        .map(|proxy| proxy.parse())
        .transpose()
        .context("the kubeconfig's proxy-url")?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = proxy;
    Ok(config)
}

/// The proxy that the current context's cluster names.
fn proxy_url(kubeconfig: &Kubeconfig) -> Option<String> {
    let context = kubeconfig
        .contexts
        .iter()
        .find(|context| Some(&context.name) == kubeconfig.current_context.as_ref())?;
    let name = &context.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == *name)?;
    cluster
        .cluster
        .as_ref()?
        .proxy_url
        .clone()
        .filter(|proxy| !proxy.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_the_current_clusters_own() {
        let kubeconfig = |current: &str| {
            let text = format!(
                "current-context: {current}\n\
                 contexts: [{{name: a, context: {{cluster: one}}}}, {{name: b, context: {{cluster: two}}}}]\n\
                 clusters:\n\
                 - {{name: one, cluster: {{server: 'https://one', proxy-url: 'http://proxy:3128'}}}}\n\
                 - {{name: two, cluster: {{server: 'https://two', proxy-url: ''}}}}\n"
            );
            Kubeconfig::from_yaml(&text).unwrap()
        };
        assert_eq!(proxy_url(&kubeconfig("a")).as_deref(), Some("http://proxy:3128"));
        assert_eq!(proxy_url(&kubeconfig("b")), None);
        assert_eq!(proxy_url(&kubeconfig("c")), None);
    }
}
