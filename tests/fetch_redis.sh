#!/bin/sh
# Puts Debian's redis-server into .cache/redis, where the tests find it; nothing is installed. Needs apt-get and dpkg.
# Without it (and without a redis-server on PATH) the Redis engine is tested against Valkey alone.
set -eu
cd "$(dirname "$0")/.."
into=$PWD/.cache/redis
[ ! -x "$into/redis-server" ] || exit 0
rm -rf "$into"
mkdir -p "$into/packages"
cd "$into/packages"
[ "$(id -u)" != 0 ] || apt-get -qq update
apt-get -qq -o APT::Sandbox::User=root download redis-server redis-tools libjemalloc2 liblzf1 libatomic1
for package in *.deb; do dpkg -x "$package" "$into"; done
cat > "$into/redis-server" <<EOF
#!/bin/sh
LD_LIBRARY_PATH=\$(echo "$into"/usr/lib/*) exec "$into/usr/bin/redis-server" "\$@"
EOF
chmod +x "$into/redis-server"
"$into/redis-server" --version
