# SPDX-License-Identifier: Apache-2.0
wan_unit_test(umt5 wan_model)
wan_unit_test(vae22 wan_model)
