/* SPDX-License-Identifier: Apache-2.0 */
/* The byte-level alphabet of GPT-2: printable Latin-1 bytes are themselves, the other 68 follow from U+0100 on. */
#include "text/unicode.h"
#include "text/vocab.h"

uint32_t emo__byte_to_char(unsigned byte) {
    if (byte <= 32)
        return 0x100 + byte;
    if (byte >= 127 && byte <= 160)
        return 0x100 + 33 + (byte - 127);
    return byte == 173 ? 0x100 + 67 : byte;
}

int emo__char_to_byte(uint32_t c) {
    if (c < 0x100)
        return (c >= 33 && c <= 126) || (c >= 161 && c != 173) ? (int)c : -1;
    uint32_t n = c - 0x100;
    if (n < 33)
        return (int)n;
    if (n < 67)
        return (int)(n - 33 + 127);
    return n == 67 ? 173 : -1;
}

unsigned emo__alphabet_byte(unsigned rank) {
    if (rank < 94)
        return 33 + rank; /* ! to ~ */
    if (rank < 106)
        return 161 + (rank - 94);
    if (rank < 188)
        return 174 + (rank - 106);
    return (unsigned)emo__char_to_byte(0x100 + (rank - 188));
}

emo_status emo__alphabet_encode(emo__buf *out, const char *bytes, size_t length, emo_error *err) {
    emo_status status = emo__buf_reserve(out, 2 * length + 1, err);
    if (status != EMO_OK)
        return status;
    for (size_t i = 0; i < length; i++)
        out->size +=
            emo__utf8_write(emo__byte_to_char((unsigned char)bytes[i]), (unsigned char *)out->data + out->size);
    out->data[out->size] = 0;
    return EMO_OK;
}

emo_status emo__alphabet_decode(emo__buf *out, const char *text, size_t length, bool *ok, emo_error *err) {
    out->size = 0;
    *ok = true;
    emo_status status = emo__buf_reserve(out, length + 1, err);
    if (status != EMO_OK)
        return status;
    for (size_t i = 0; i < length;) {
        uint32_t c;
        i += emo__utf8_read((const unsigned char *)text + i, &c);
        int byte = emo__char_to_byte(c);
        if (byte < 0) {
            *ok = false;
            return EMO_OK;
        }
        out->data[out->size++] = (char)byte;
    }
    out->data[out->size] = 0;
    return EMO_OK;
}
