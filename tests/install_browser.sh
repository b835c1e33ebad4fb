#!/bin/sh
# Chromium and its driver, with which the tests look at pages: from Debian's packages, where there
# are none and this user may install them. Without a browser those tests are skipped.
command -v chromedriver >/dev/null && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "No chromedriver here: tests of pages in a browser will be skipped. Install Chromium and" \
    "its driver to run them (Debian: apt install chromium chromium-driver)."
  exit 0
fi
echo "Installing Chromium for the tests of pages ..."
export DEBIAN_FRONTEND=noninteractive
{ apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium chromium-driver; } \
  >/dev/null ||
  echo "Chromium could not be installed: tests of pages in a browser will be skipped."
