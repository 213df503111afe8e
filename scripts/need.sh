#!/bin/sh
# Make sure that the Debian packages are here that a target needs: `need.sh build`, `need.sh test` …
# As root it installs what is missing; otherwise it names the one line that does.
set -eu

python=${PYTHON:-python3}
missing=

need() { # a command that succeeds where the package is here, then the package
    if ! eval "$1" >/dev/null 2>&1; then missing="$missing $2"; fi
}
command_of() { need "command -v $1" "$2"; }

for what in "$@"; do
    case $what in
    build)
        need "$python -c 'import ensurepip, venv'" python3-venv
        need "test -f \"\$($python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')/Python.h\"" python3-dev
        command_of cc gcc
        ;;
    demo)
        command_of ping iputils-ping
        ;;
    test)
        command_of ping iputils-ping
        command_of tcpdump tcpdump
        command_of nsenter util-linux
        command_of setpriv util-linux
        command_of ip iproute2
        command_of c++ g++
        command_of curl curl
        command_of iperf3 iperf3
        command_of nmap nmap
        command_of traceroute traceroute
        command_of strace strace
        command_of systemd-analyze systemd
        command_of msibuild msitools
        command_of wixl wixl
        command_of cabextract cabextract
        command_of gcab gcab
        command_of makensis nsis
        command_of openssl openssl
        ;;
    msm)
        command_of x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64
        command_of i686-w64-mingw32-gcc gcc-mingw-w64-i686
        command_of osslsigncode osslsigncode
        need 'test -e /etc/ssl/certs/ca-certificates.crt' ca-certificates
        ;;
    installer)
        command_of wine wine
        need "test -x /usr/lib/wine/wine64" wine64
        command_of x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64
        ;;
    fuzz)
        command_of clang clang
        need 'ls "$(clang -print-resource-dir)"/lib/*/libclang_rt.fuzzer*' libclang-rt-dev
        ;;
    bench)
        command_of iperf3 iperf3
        command_of ping iputils-ping
        command_of ip iproute2
        command_of nsenter util-linux
        command_of taskset util-linux
        ;;
    esac
done

[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Debian packages:$missing"
    apt-get update -q >/dev/null || true
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
else
    echo "Some Debian packages are missing. Install them with:" >&2
    echo "    sudo apt-get install$missing" >&2
    exit 1
fi
