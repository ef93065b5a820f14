#!/bin/sh
# Turns what git describe says into a version that dpkg orders as the commits are:
# v1.2.3 is 1.2.3, v1.3.0-rc1 comes before 1.3.0, v1.2.3-4-gabcdef after 1.2.3, and a commit
# without any tag before all of them, by its date. See deb-version(7).
set -eu
version=$1 date=${2:-0}
dirty=
case $version in
*-dirty) dirty=+dirty version=${version%-dirty} ;;
esac
commits=
case $version in
*-[0-9]*-g[0-9a-f]*)
	hash=${version##*-} rest=${version%-*}
	commits=+${rest##*-}.$hash version=${rest%-*}
	;;
esac
case $version in
v[0-9]*) version=${version#v} ;;
[0-9]*.[0-9]*) ;;
*) # no tag: a hash, or nothing known at all
	version=0~$date.$version
	;;
esac
# What is behind the first hyphen precedes the release; dpkg would take it for a revision.
echo "$version$commits$dirty" | sed 's/-/~/; s/-/./g'
