// Numbers to and from text, exactly: std::from_chars and std::to_chars where a shortcut is not exact anyway.
#pragma once
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace batchmill {

// A JSON number that has passed the grammar check, in pieces.
struct NumberText {
    const char* begin = nullptr;
    const char* end = nullptr;
    uint64_t mantissa = 0;   // the first 19 digits: all of them, when there are no more
    int32_t digits = 0;      // significant ones
    int32_t exponent = 0;    // decimal, of the last digit
    bool negative = false;
    bool integer = true;     // no '.', no 'e'
};

// The nearest double, ties to even: bit-equal to Python's float(). False: overflow. Underflow is 0.
inline bool to_double(const NumberText& text, double* value) {
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (text.digits <= 19 && text.mantissa <= (uint64_t{1} << 53) && text.exponent >= -22 && text.exponent <= 22) {
        // Both factors are exact doubles, so one rounding gives the nearest one (Clinger, PLDI 1990).
        double exact = static_cast<double>(text.mantissa);
        exact = text.exponent < 0 ? exact / powers[-text.exponent] : exact * powers[text.exponent];
        *value = text.negative ? -exact : exact;
        return true;
    }
    auto result = std::from_chars(text.begin, text.end, *value);
    if (result.ec == std::errc()) return true;
    // Out of range: from_chars does not say which way, the magnitude does.
    int64_t magnitude = static_cast<int64_t>(text.digits) + text.exponent;
    if (magnitude > 0) return false;
    *value = text.negative ? -0.0 : 0.0;
    return true;
}

// The shortest text that reads back as the same value; it always shows that it is no integer (".0" or an exponent).
template <typename Float>
inline char* put_float(char* at, Float value) {
    constexpr Float kExactBelow = sizeof(Float) == 4 ? Float(1 << 24) : Float(1e15);  // whole digits are the shortest there
    if (std::fabs(value) < kExactBelow && value == std::trunc(value)) {
        if (std::signbit(value)) *at++ = '-';
        at = std::to_chars(at, at + 20, static_cast<uint64_t>(std::fabs(value))).ptr;
        std::memcpy(at, ".0", 2);
        return at + 2;
    }
    char* end = std::to_chars(at, at + 32, value).ptr;
    for (char* seen = at; seen < end; ++seen)
        if (*seen == '.' || *seen == 'e') return end;
    std::memcpy(end, ".0", 2);
    return end + 2;
}
inline char* put_int(char* at, int64_t value) { return std::to_chars(at, at + 24, value).ptr; }
inline char* put_uint(char* at, uint64_t value) { return std::to_chars(at, at + 24, value).ptr; }

inline float half_to_float(uint16_t half) {
    uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 31, fraction = half & 0x3FFu, bits;
    if (exponent == 31) {
        bits = sign | 0x7F800000u | fraction << 13;
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        float small = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // 2^-24
        return sign ? -small : small;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline float brain_to_float(uint16_t brain) {
    uint32_t bits = static_cast<uint32_t>(brain) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

}  // namespace batchmill
