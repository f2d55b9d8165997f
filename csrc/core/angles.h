// Angles without branches or library calls, as the functions of elementary.h are; largest errors in units in the last
// place (tests/cpp/test_angles.cpp measures them):
//     angle_of            2.2   the angle of (x, y), y >= 0, from 0 to pi
//     sine_excess_from    2.6   sin t - t cos t, 1 - cos t = s in [0, 1]
#pragma once

#include "core/config.h"
#include "core/elementary.h"

namespace igb::inline IGB_ISA {

// atan(r) for |r| <= tan(pi/8): r + r z P(z), z = r^2, P of degree 10, error 7e-18.
IGB_HD double arctan_near(double r) {
    const double z = r * r;
    return r + r * (z * horner<double>(z, -0.3333333333333333, 0.1999999999999548, -0.14285714284657894,
                                       0.11111111014561013, -0.09090904549884611, 0.07692182535116648,
                                       -0.06664502215671447, 0.058580687568615106, -0.05085030492810941,
                                       0.03921955253255129, -0.019162068915902573));
}

// The angle between the positive x axis and (x, y) for y >= 0; 0 for (0, 0). The point is turned by 0, 45 or 90
// degrees to within 22.5 degrees of an axis, so that there is one division.
IGB_HD double angle_of(double y, double x) {
    constexpr double tan_pi_8 = 0.41421356237309503, pi_4 = 0.78539816339744828, pi_4_low = 3.0616169978683829e-17;
    const double size = absolute(x);
    const double low = y < size ? y : size,
                 high = y < size ? size : y;  // the angle from the nearer axis: atan(low / high)
    const double steep = size - y, diagonal = tan_pi_8 * high - low, left = x;  // each true where negative
    const double up = choose_by_sign(diagonal, low - high, low), along = choose_by_sign(diagonal, low + high, high);
    const double near = arctan_near(up / (along > 0.0 ? along : 1.0));
    // The whole is so many quarters of pi, plus or minus what is near.
    const double quarters = choose_by_sign(diagonal, 1.0, 0.0);
    const double from_x = choose_by_sign(steep, 2.0 - quarters, quarters);
    const double whole = choose_by_sign(left, 4.0 - from_x, from_x);
    const double rest = flip_sign(near, sign_of(steep) ^ sign_of(left));
    return whole * pi_4 + (rest + whole * pi_4_low);
}

// sin t - t cos t = s^(3/2) P(s), s = 1 - cos t = 2 sin^2(t/2): P of degree 17 on [0, 1], error 1.1e-17.
IGB_HD double sine_excess_from(double s) {
    return s * square_root(s) *
           horner<double>(s, 0.9428090415820634, 0.04714045207910578, 0.007576144083861955, 0.00175373706836867,
                          0.0004882560753931928, 0.0001521141993722164, 5.109425451483467e-05, 1.8349126840897055e-05,
                          5.83672864724229e-06, 5.465788068101837e-06, -6.1128606173822415e-06, 1.3534533881674908e-05,
                          -1.7948915243682663e-05, 1.8519148835413642e-05, -1.3478121029305757e-05,
                          6.765053154679045e-06, -2.0764150855087167e-06, 3.0658986785827735e-07);
}

}  // namespace igb::inline IGB_ISA
