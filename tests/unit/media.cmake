# SPDX-License-Identifier: Apache-2.0
wan_unit_test(resize wan_io wan_base)
wan_unit_test(picture wan_media)
wan_unit_test(clip wan_media)
