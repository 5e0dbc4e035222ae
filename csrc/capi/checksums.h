// The two checksums of a model file (docs/format.md): SHA-256 of its header, CRC-32 of a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nodebits {

// FIPS 180-4, as 64 hexadecimal digits.
std::string sha256(std::string_view data);

// CRC-32 of zlib and PNG (polynomial 0xEDB88320), going on from `crc`.
uint32_t crc32(const void* data, size_t bytes, uint32_t crc = 0);

}  // namespace nodebits
