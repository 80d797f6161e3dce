"""``gandist fit``: can the generator learn a fixed batch by heart, and at which learning rate?"""
