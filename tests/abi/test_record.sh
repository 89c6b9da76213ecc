#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The ABI is the one on record (scripts/abi.sh says how it is looked at). usage: test_record.sh SOURCE_DIR BUILD_DIR
rc=0
bash "$1/scripts/abi.sh" || rc=$?
[ $rc = 3 ] && exit 77
exit $rc
