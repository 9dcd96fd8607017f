# SPDX-License-Identifier: Apache-2.0
wan_unit_test(clean wan_text PkgConfig::JANSSON)
wan_unit_test(spiece_file wan_text)
wan_unit_test(tokenizer wan_text PkgConfig::JANSSON)
