"""From images to descriptors, from descriptors to ranked lists, from ranked lists to recalls."""
