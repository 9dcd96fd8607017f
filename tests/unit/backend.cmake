# SPDX-License-Identifier: Apache-2.0
wan_unit_test(peak wan_backend_cpu)
wan_unit_test(detect wan_backend_cpu)
wan_unit_test(kernels_amx wan_base)
wan_unit_test(kernels_amx_int8 wan_base)
