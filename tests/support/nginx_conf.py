"""The configuration of the tests' nginx; support/nginx.py says what its locations do."""

from __future__ import annotations

from pathlib import Path

BASIC_AUTH = ("user", "pass word")

STATUSES = {
    400: "bad request",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    409: "conflict",
    410: "gone",
    429: "too many requests",
    500: "internal server error",
    502: "bad gateway",
    503: "service unavailable",
    504: "gateway timeout",
}

MAIN = """\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 1000; }
http {
    log_format fields escape=json
        '[$port, "$request_method", "$request_uri", "$status", $connection, $connection_requests, '
        '$authorized, $body_bytes_sent]';
    map $server_port $port { default $server_port; "" 0; }  # none on a Unix socket
    map $http_authorization $authorized { default true; "" false; }
    map $http_content_length $size { default $http_content_length; "" 0; }
    access_log access.log fields;

    client_body_temp_path temp-body;
    proxy_temp_path temp-proxy;
    fastcgi_temp_path temp-fastcgi;
    uwsgi_temp_path temp-uwsgi;
    scgi_temp_path temp-scgi;

    types { application/json json; text/plain txt; }
    default_type application/octet-stream;
    absolute_redirect off;
    client_max_body_size 0;

    server {
        listen unix:%(folder)s/sink;
        access_log off;
        location = /upload { default_type text/plain; return 200 $size; }
        location = /too-large { default_type text/plain; return 200 $size; }
        location / {
            default_type application/json;
            return 200 '{"method": "$request_method", "uri": "$request_uri", "size": $size, %(echo)s}';
        }
    }
    server { listen 127.0.0.1:%(http)s; listen unix:%(folder)s/http; include locations.conf; }
    server { listen 127.0.0.1:%(other)s; include locations.conf; }
    server {
        listen 127.0.0.1:%(https)s ssl;
        listen unix:%(folder)s/https ssl;
        ssl_certificate %(cert)s;
        ssl_certificate_key %(cert)s;
        include locations.conf;
    }
    server {
        listen 127.0.0.1:%(mtls)s ssl;
        ssl_certificate %(cert)s;
        ssl_certificate_key %(cert)s;
        ssl_client_certificate %(ca)s;
        ssl_verify_client on;
        include locations.conf;
    }
}
"""

# `return` would come before nginx looks at credentials: what is protected has to be a file.
LOCATIONS = """\
location = /settle { access_log off; return 204; }
location = /text { alias %(folder)s/text; default_type text/plain; }
location = /json { alias %(folder)s/json; default_type application/json; }
location = /json-as-text { alias %(folder)s/json; default_type text/plain; }
location /files/ { alias %(folder)s/files/; dav_methods PUT DELETE; }
location /no-ranges/ { alias %(folder)s/files/; max_ranges 0; }
location /no-validators/ { alias %(folder)s/files/; etag off; add_header Last-Modified ""; }
location /gzip/ { alias %(folder)s/files/; gzip on; gzip_types *; gzip_min_length 1; }
location = /slow { alias %(folder)s/files/big.bin; limit_rate 4k; }
location = /bomb { alias %(folder)s/bomb; add_header Content-Encoding gzip; }
location = /keepalive-3 { alias %(folder)s/text; default_type text/plain; keepalive_requests 3; }
location = /keepalive-0 { alias %(folder)s/text; default_type text/plain; keepalive_timeout 0; }
location = /keepalive-50ms { alias %(folder)s/text; default_type text/plain; keepalive_timeout 50ms; }
location = /basic-auth {
    alias %(folder)s/text;
    default_type text/plain;
    auth_basic "tests";
    auth_basic_user_file htpasswd;
}
location = /cookies/set {
    default_type text/plain;
    add_header Set-Cookie "$arg_name=$arg_value; Path=/";
    return 200 ok;
}
location = /chain/0 { alias %(folder)s/text; default_type text/plain; }
location = /loop { return 302 /loop; }
location = /too-large { client_max_body_size 1000; include proxy.conf; }
location = /upload { include proxy.conf; }
location = /echo { include proxy.conf; }
"""

# The body is read whole and its size known before the inner server is asked, even if it came in chunks.
PROXY = """\
proxy_pass http://unix:%(folder)s/sink;
proxy_set_header Host $http_host;
proxy_set_header X-Transfer-Encoding $http_transfer_encoding;
"""

# What /echo shows, and the variable that holds it.
ECHO = {"host": "$http_host", "transfer_encoding": "$http_x_transfer_encoding"} | {
    name: f"$http_{name}"
    for name in (
        "authorization",
        "content_type",
        "content_encoding",
        "cookie",
        "user_agent",
        "accept",
        "accept_encoding",
        "idempotency_key",
        "via",
        "x_test",
    )
}


def write_configuration(folder: Path, ports: list[int], cert: Path, ca: Path) -> Path:
    """The path of nginx.conf in `folder`, written there with the files that it includes."""
    http, other, https, mtls = ports
    echo = ", ".join(f'"{name}": "{variable}"' for name, variable in ECHO.items())
    values = {"folder": folder, "http": http, "other": other, "https": https, "mtls": mtls, "cert": cert, "ca": ca}
    (folder / "proxy.conf").write_text(PROXY % values)
    (folder / "locations.conf").write_text(LOCATIONS % values + _redirects(http, other, https) + _statuses())
    path = folder / "nginx.conf"
    path.write_text(MAIN % {**values, "echo": echo})
    return path


def _redirects(http: int, other: int, https: int) -> str:
    targets = {
        "same": "",
        "other-port": f"http://127.0.0.1:{other}",
        "other-host": f"http://localhost:{http}",
        "https": f"https://127.0.0.1:{https}",
        "http": f"http://127.0.0.1:{http}",
    }
    single = (
        f"location = /redirect/{code}/{name} {{ return {code} {target}/echo; }}\n"
        for code in (301, 302, 303, 307, 308)
        for name, target in targets.items()
    )
    chain = (f"location = /chain/{number} {{ return 302 /chain/{number - 1}; }}\n" for number in range(1, 21))
    return "".join([*single, *chain])


def _statuses() -> str:
    return "".join(
        f"location = /status/{status} {{ default_type text/plain; add_header Retry-After $arg_retry_after always; "
        f'return {status} "{body}\\n"; }}\n'
        for status, body in STATUSES.items()
    )
