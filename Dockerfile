# Two stages: everything that builds stays in the first; the image that runs holds Python, the pinned packages and
# Palaver, and starts as an unprivileged user. How to run it: docs/howto/docker.md.
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# The packages first: this layer is made again only when a pin changes. The backend that builds our wheel stays here.
COPY requirements.txt requirements-build.txt ./
RUN python -m venv /opt/palaver \
 && /opt/palaver/bin/pip install --require-hashes --no-deps -r requirements.txt \
 && python -m venv /build/backend \
 && /build/backend/bin/pip install --require-hashes --no-deps -r requirements-build.txt

COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY config config
COPY sessions sessions
COPY adapters adapters
COPY bot bot
RUN /build/backend/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheel . \
 && /opt/palaver/bin/pip install --no-index --no-deps /build/wheel/*.whl \
 && /opt/palaver/bin/pip check \
 && /opt/palaver/bin/pip uninstall --yes pip

FROM python:${PYTHON} AS run
# The base image comes without bytecode and the one who runs here cannot write any: each start and each health check would
# compile the standard library anew.
RUN python -c "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2)"
RUN groupadd --system --gid 10001 palaver \
 && useradd --system --uid 10001 --gid palaver --home-dir /var/lib/palaver --shell /usr/sbin/nologin palaver \
 && install --directory --owner=palaver --group=palaver --mode=0700 /var/lib/palaver
COPY --from=build /opt/palaver /opt/palaver

# Nothing is written outside /var/lib/palaver and /tmp, so the root file system may be read-only. PYTHONSAFEPATH: a folder
# named `config` in the working directory must not stand in for ours.
ENV PATH=/opt/palaver/bin:$PATH \
    HOME=/var/lib/palaver \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PALAVER_DATABASE_URL=sqlite:///var/lib/palaver/palaver.db
WORKDIR /var/lib/palaver
VOLUME ["/var/lib/palaver"]
EXPOSE 8080
USER 10001:10001
STOPSIGNAL SIGTERM

# Asked from inside the container, so it works while the server listens on loopback only, which is the default.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-m", "bot.web.probe"]

ENTRYPOINT ["palaver"]
CMD ["run"]
