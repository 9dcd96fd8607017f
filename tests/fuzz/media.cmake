# SPDX-License-Identifier: Apache-2.0
wan_fuzz(picture wan_media)
wan_fuzz(frames wan_media)
