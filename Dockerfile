# The gateway in a container: `docker compose up`. See docs/container.md.
FROM python:3.13-slim AS build
COPY . /source
RUN python3 -m venv /opt/gateway
RUN /opt/gateway/bin/pip install --quiet --no-cache-dir --no-deps --require-hashes --requirement /source/requirements/run.txt
RUN /opt/gateway/bin/pip install --quiet --no-cache-dir --no-deps --no-build-isolation /source

FROM python:3.13-slim
COPY --from=build /opt/gateway /opt/gateway
# Configuration, database, key and backups are all below its home folder.
RUN useradd --create-home --home-dir /data gateway
ENV PATH=/opt/gateway/bin:$PATH HOME=/data
USER gateway
VOLUME /data
HEALTHCHECK --interval=30s --start-period=60s CMD local-mcp-gateway health
ENTRYPOINT ["local-mcp-gateway"]
CMD ["serve"]
